"""Save, load in new environments, continue: bit for bit the same."""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tasks.control import Environments, make
from rheostat.tasks.control.plain_data import NotPlain, pack, unpack
from tests.tasks.test_environments import actions
from tests.tasks.worlds import Clock, Counting, SavableCounting

FIELDS = ("observation", "next_observation", "reward", "terminated", "truncated", "valid")


def through_json(state: Any) -> Any:
    """The state as a checkpoint would hold it: tensors aside, everything else through JSON."""
    tensors: list[Tensor] = []

    def strip(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value.clone())
            return {"tensor": len(tensors) - 1}
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            return {key: strip(item) for key, item in value.items()}
        if isinstance(value, list):
            return [strip(item) for item in value]
        assert value is None or type(value) in (int, float, str, bool), f"{type(value)} is not plain"
        assert not isinstance(value, int) or abs(value) < 2**63
        return value

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return tensors[value["tensor"]] if set(value) == {"tensor"} else {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    return fill(json.loads(json.dumps(strip(state))))


def require_exact_resume(first: Environments, second: Environments, before: int = 40, after: int = 40) -> dict[str, Any]:
    """Run, save, run on; load elsewhere, run the same actions: every output is equal."""
    first.reset()
    commands = actions(first, before + after)
    for action in commands[:before]:
        seen = first.step(action).observation
    state = through_json(first.state_dict())
    expected = [first.step(action) for action in commands[before:]]
    assert torch.equal(second.load_state_dict(state), seen)
    for step, action in zip(expected, commands[before:], strict=True):
        other = second.step(action)
        for field in FIELDS:
            assert torch.equal(getattr(step, field), getattr(other, field)), field
    assert first.steps == second.steps and first.seed == second.seed
    return state


@pytest.mark.parametrize("task", ["CartPole-v1", "HalfCheetah-v5", "Hopper-v5", "Pendulum-v1", "FrozenLake-v1"])
def test_envpool_resumes_by_repeating_its_actions(task: str) -> None:
    first, second = make(task, num_envs=3, seed=5), make(task, num_envs=3, seed=99, threads=1)
    state = require_exact_resume(first, second)
    assert state["pools"]["log"].shape[:2] == (40, 3)


@pytest.mark.parametrize(
    "task",
    [
        "gymnasium:CartPole-v1",
        "gymnasium:Pendulum-v1",
        "gymnasium:Acrobot-v1",
        "gymnasium:MountainCar-v0",
        "gymnasium:MountainCarContinuous-v0",
        "gymnasium:FrozenLake-v1",
        "gymnasium:CliffWalking-v1",
        "gymnasium:Taxi-v4",
        "gymnasium:Blackjack-v1",
        "rheostat/GridWorld5x5-v0",
        "rheostat/TwoStep-v0",
        "rheostat/Discrete2D-v0",
        "rheostat/Probe-RewardFromBoth-Continuous-v0",
        "rheostat/Probe-DelayedReward-v0",
        "rheostat/Probe-TimeLimit-v0",
    ],
)
def test_gymnasium_worlds_are_saved_as_they_are(task: str) -> None:
    first, second = make(task, num_envs=3, seed=5), make(task, num_envs=3, seed=99)
    state = require_exact_resume(first, second)
    assert first.can_save and "worlds" in state


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5", "Reacher-v5", "Pusher-v5"])
def test_mujoco_is_saved_with_its_derived_arrays(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio", reason="gymnasium's MuJoCo environments need imageio")
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into a file where it stands
    first, second = make(f"gymnasium:{task}", num_envs=2, seed=5), make(f"gymnasium:{task}", num_envs=2, seed=99)
    assert first.can_save
    require_exact_resume(first, second)


def test_the_row_after_an_episode_end_survives_a_checkpoint() -> None:
    for task in ("CartPole-v1", "gymnasium:CartPole-v1"):
        first = make(task, num_envs=2, seed=0)
        first.reset()
        push = torch.ones(2, dtype=torch.int64)
        while not (step := first.step(push)).terminated.any():
            pass
        second = make(task, num_envs=2, seed=0)
        second.load_state_dict(first.state_dict())
        assert torch.equal(second.step(push).valid, ~step.terminated)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("world", [Counting, SavableCounting])
def test_users_environments_resume_in_every_autoreset_mode(world: type[Counting], mode: AutoresetMode) -> None:
    first, second = (make(SyncVectorEnv([world] * 3, autoreset_mode=mode), num_envs=3, seed=seed) for seed in (5, 99))
    state = require_exact_resume(first, second)
    assert all(("recording" in each) == (world is Counting) for each in state["worlds"]["environments"])


def test_batched_worlds_that_save_themselves_are_saved() -> None:
    first, second = make(Clock(4), num_envs=4, seed=5), make(Clock(4), num_envs=4, seed=99)
    assert first.can_save
    require_exact_resume(first, second)


def test_standard_wrappers_are_saved() -> None:
    def wrapped() -> gymnasium.Env:
        environment = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("Pendulum-v1", max_episode_steps=23))
        return gymnasium.wrappers.FlattenObservation(gymnasium.wrappers.TimeAwareObservation(environment))

    first, second = make(wrapped, num_envs=2, seed=1), make(wrapped, num_envs=2, seed=2)
    assert first.can_save
    require_exact_resume(first, second)


def test_unknown_wrappers_are_recorded() -> None:
    def wrapped() -> gymnasium.Env:
        return gymnasium.wrappers.FrameStackObservation(gymnasium.make("Pendulum-v1"), 3)

    first, second = make(wrapped, num_envs=2, seed=1), make(wrapped, num_envs=2, seed=2)
    state = require_exact_resume(first, second)
    assert "recording" in state["worlds"]["environments"][0]


def test_a_reset_in_the_middle_is_remembered() -> None:
    first, second = make("CartPole-v1", num_envs=2, seed=0), make("CartPole-v1", num_envs=2, seed=9)
    first.reset()
    commands = actions(first, 20)
    for action in commands[:7]:
        first.step(action)
    first.reset()
    for action in commands[7:]:
        first.step(action)
    first.reset()
    observation = first.reset()
    assert torch.equal(second.load_state_dict(through_json(first.state_dict())), observation)
    assert torch.equal(first.step(commands[0]).observation, second.step(commands[0]).observation)


def test_a_restart_forgets_what_was_before() -> None:
    environments = make("CartPole-v1", num_envs=2, seed=0)
    environments.reset()
    for action in actions(environments, 20):
        environments.step(action)
    environments.restart(40_000)
    state = environments.state_dict()["pools"]
    assert state["seeds"] == [40_000] and state["log"] is None and state["count"] == 0
    require_exact_resume(make("CartPole-v1", num_envs=2, seed=1), environments)


class Drift(gymnasium.Env):
    """Adds up its actions, which have no bounds."""

    def __init__(self) -> None:
        self.observation_space = self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place = np.zeros(1, dtype=np.float32)
        return self.place, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.place = self.place + action
        return self.place, 0.0, False, False, {}


@pytest.mark.parametrize("task", ["CartPole-v1", "HalfCheetah-v5", Drift])
def test_recorded_actions_are_not_the_callers_tensors(task: Any) -> None:
    first = make(task, num_envs=2, seed=0)
    first.reset()
    for action in actions(first, 5):
        first.step(action)
        action.zero_()
    second = make(task, num_envs=2, seed=0)
    second.load_state_dict(first.state_dict())
    assert second.can_save and not second.warnings  # says so if the repetition went elsewhere


def test_a_world_that_cannot_be_replayed_is_found_out() -> None:
    class Forgetful(Counting):
        number = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
            observation, info = super().reset(seed=seed)
            type(self).number += 1
            return observation + type(self).number, info

    environments = make(Forgetful, num_envs=1, seed=0)
    environments.reset()
    other = make(Forgetful, num_envs=1, seed=0)
    other.load_state_dict(environments.state_dict())
    assert not other.can_save and "save_state" in other.warnings[0] and "new episode" in other.warnings[0]
    other.restart(5)
    assert other.can_save


def test_states_of_other_environments_are_refused() -> None:
    environments = make("CartPole-v1", num_envs=2, seed=0)
    with pytest.raises(RheostatError, match="reset"):
        environments.state_dict()
    environments.reset()
    state = environments.state_dict()
    for other in (
        make("CartPole-v1", num_envs=3, seed=0),
        make("Acrobot-v1", num_envs=2, seed=0),
        make("gymnasium:CartPole-v1", num_envs=2, seed=0),
    ):
        with pytest.raises(RheostatError, match="make them as they were"):
            other.load_state_dict(state)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.builds(np.float32, st.floats(-1, 1)),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_packing_keeps_values_and_types(value: Any) -> None:
    back = unpack(through_json(pack(value)))
    assert back == value and repr(back) == repr(value)


def test_packing_keeps_arrays_and_generators() -> None:
    generator = np.random.default_rng(3)
    state = unpack(through_json(pack(generator.bit_generator.state)))
    other = np.random.default_rng(0)
    other.bit_generator.state = state
    assert np.array_equal(generator.random(4), other.random(4))
    array = unpack(pack(np.arange(6, dtype=np.int16).reshape(2, 3)))
    assert array.dtype == np.int16 and array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert unpack(through_json(pack({1, 2}))) == {1, 2} and unpack(through_json(pack({1: (2, b"x")}))) == {1: (2, b"x")}
    counts = Counter("aab")
    assert unpack(through_json(pack(counts))) == counts and type(unpack(pack(OrderedDict(a=1)))) is OrderedDict
    wanted = torch.ones(2, requires_grad=True)
    assert not unpack(pack({"t": wanted * 2}))["t"].requires_grad


def chain(length: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(length):
        found = [found]
    return found


CLOSED: list[Any] = []
CLOSED.append(CLOSED)
STRANGE = {
    "Thread": threading.Thread(),
    "datetime64": np.datetime64("2020-01-01"),
    "timedelta64": np.timedelta64(3, "s"),
    "longdouble": np.longdouble(1) / 3,
    "complex long double": np.clongdouble(1j),
    "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
    "texts": np.array(["a"]),
    "objects": np.array([object()]),
    "long doubles": np.zeros(2, np.longdouble),
    "records": np.zeros(2, [("a", int)]),
    "bytes": np.bytes_(b"a"),
    "foreign": np.zeros(2, ">f8"),
    "masked": np.ma.zeros(2),
    "a long chain": chain(100_000),
    "closed": CLOSED,
    "deep in a key": {(1, (2, np.datetime64("2020"))): 3},
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_plain_says_so(name: str) -> None:
    for value in (STRANGE[name], [STRANGE[name]], {"a": (STRANGE[name],)}):
        with pytest.raises(NotPlain):
            pack(value)


class Node:
    """Of a list that is linked by hand."""

    def __init__(self, following: Any) -> None:
        self.following = following


@pytest.mark.parametrize("name", STRANGE)
def test_an_environment_may_hold_what_is_not_plain(name: str) -> None:
    class Holding(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.nodes: Any = None
            for _ in range(3_000):
                self.nodes = Node(self.nodes)

        def reset(self, **options: Any) -> Any:
            self.held = [STRANGE[name]]  # anew in every episode
            return super().reset(**options)

    require_exact_resume(make(Holding, num_envs=2, seed=5), make(Holding, num_envs=2, seed=99), 15, 5)


def test_a_state_that_is_not_plain_is_refused_in_one_sentence() -> None:
    class Dated(SavableCounting):
        def save_state(self) -> dict[str, Any]:
            return {"when": np.datetime64("2020-01-01")}

    environments = make(Dated, num_envs=1, seed=0)
    environments.reset()
    with pytest.raises(RheostatError, match=r"save_state\(\) of Dated returns holds numpy data of type datetime64\[D\]: return numbers"):
        environments.state_dict()
