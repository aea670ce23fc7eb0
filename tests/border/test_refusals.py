"""What cannot be a world, a number of them or a setting is refused in one sentence before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces import Box
from gymnasium.vector import SyncVectorEnv

import rheostat
from rheostat.errors import RheostatError
from rheostat.tasks.control import make
from rheostat.tasks.control.backends import EnvPoolEnvs
from rheostat.tasks.control.pools import RollingPools, draws_only_in_reset
from rheostat.tasks.control.restoring import Restorable
from rheostat.training.settings import Settings
from tests.border.test_environments import Any_
from tests.border.worlds import Line


class Older:
    """As the classes of the older gym."""

    observation_space, action_space = Box(-1, 1, (2,)), spaces.Discrete(2)

    def reset(self) -> Any: ...
    def step(self, action: Any) -> Any: ...


class NoSpaces(gymnasium.Env): ...


class WrongSpaces(gymnasium.Env):
    observation_space, action_space = (2,), 3  # type: ignore[assignment]


class Needs(Line):
    def __init__(self, level: int) -> None:
        super().__init__()


TASKS: dict[str, tuple[Any, str]] = {
    "nothing": (None, "not None"),
    "a number": (3, "not 3"),
    "a list": ([Line], "not \\[<class"),
    "a space": (Box(-1, 1), "not Box"),
    "an object of the older gym": (Older(), "has reset and step: derive its class from gymnasium.Env"),
    "a class of the older gym": (Older, "Older made .* which is no gymnasium.Env, which has reset and step"),
    "a function that makes nothing": (lambda: None, "made None, which is no gymnasium.Env"),
    "a function that makes a name": (lambda: "CartPole-v1", "made 'CartPole-v1', which is no gymnasium.Env"),
    "a function that makes a vector": (lambda: SyncVectorEnv([Line]), "a vector environment: hand it over as it is"),
    "no spaces": (NoSpaces, "observation_space of NoSpaces is None: set it"),
    "an object without spaces": (NoSpaces(), "observation_space of NoSpaces is None: set it"),
    "spaces that are none": (WrongSpaces, r"observation_space of WrongSpaces is \(2,\): set it"),
    "the base class": (gymnasium.Env, "observation_space of Env is None"),
    "a class with arguments": (Needs, "Needs cannot be called with no arguments: missing a required argument: 'level'"),
    "no id": ("", "Unknown control task ''"),
    "no module": (":Foo", "':Foo' is not of the form MODULE:ID"),
    "no id of a module": ("json:", "'json:' is not of the form MODULE:ID"),
    "a file": ("worlds.py:Line-v0", "not of the form MODULE:ID.*not its file"),
    "a path": ("folder/worlds:Line-v0", "not of the form MODULE:ID"),
    "dots": ("..:Line-v0", "not of the form MODULE:ID"),
    "a NUL": ("a\0b:Line-v0", "not of the form MODULE:ID"),
    "a module that is not there": ("nowhere_at_all:Line-v0", "no module 'nowhere_at_all'"),
    "a module without the id": ("json:NeverMade-v0", "Environment `NeverMade` doesn't exist"),
    "two prefixes": ("envpool:envpool:CartPole-v1", "Unknown EnvPool task 'envpool:CartPole-v1': did you mean CartPole-v1"),
    "an id of nobody": ("gymnasium:Nope-v0", "Unknown Gymnasium task 'Nope-v0'"),
}


@pytest.mark.parametrize("name", TASKS)
def test_what_is_no_world(name: str, tmp_path: Path) -> None:
    task, message = TASKS[name]
    with pytest.raises(RheostatError, match=message) as caught:
        make(task, num_envs=1, seed=0)
    assert "\n" not in str(caught.value)
    if name != "nothing":
        with pytest.raises(RheostatError):
            rheostat.train("ppo", task, directory=tmp_path / "run", progress=False, num_envs=1)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["CartPole-v1", "gymnasium:CartPole-v1", Line])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"num_envs": number}, f"num_envs is {number!r}; it must be at least 1 and at most 1,000,000") for number in (0, -1, 2**40)),
        *(({"num_envs": number}, "it must be a whole number") for number in (1.5, "2", True, None)),
        *(({"seed": number}, f"seed is {number}; it must be at least 0 and at most 2,147,483,646") for number in (-1, 2**31, 2**70)),
        *(({"seed": number}, "it must be a whole number") for number in (1.5, "a", None)),
        *(({"threads": number}, f"threads is {number}; it must be at least 1 and at most 4,096") for number in (0, -3, 10**9)),
        *(({"threads": number}, "it must be a whole number") for number in (1.5, "all")),
        *(({"backend": name}, f"Unknown backend {name!r}: one of auto, envpool, gymnasium") for name in ("foo", None, "Gymnasium")),
    ],
)  # fmt: skip
def test_numbers_out_of_range(task: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RheostatError, match=message):
        make(task, **({"num_envs": 1, "seed": 0} | options))


def test_numbers_of_numpy_are_numbers() -> None:
    for task in ("CartPole-v1", Line):
        environments = make(task, num_envs=np.int64(2), seed=np.int32(3), threads=np.int8(1))
        assert len(environments.reset()) == 2 and type(environments.seed) is int


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"seed": 1.5}, "seed is 1.5; it must be of type int"),
        ({"seed": 2**63}, "it must be at least 0 and at most"),
        ({"steps": "many"}, "steps is 'many'; it must be of type int"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"threads": 10**9}, "threads is 1000000000; it must be at least 1 and at most 1,024"),
        ({"backend": "foo"}, "backend is 'foo'; it must be one of auto, envpool, gymnasium"),
        ({"environment_options": [1]}, r"environment_options is \[1\]; it must be a table of names and values"),
        ({"environment_options": {"seed": 3}}, "seed is no option of the environment"),
        ({"environment_options": {"fields": ["a"]}}, "fields is no option of the environment"),
        ({"environment_options": {"gravity": 3}}, "Unknown option of the EnvPool task CartPole-v1 'gravity'"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=message):
        rheostat.train("ppo", "CartPole-v1", directory=tmp_path / "run", progress=False, **options)
    assert not (tmp_path / "run").exists()


def test_settings_take_numbers_of_numpy_and_paths() -> None:
    for wrong, message in (({"sandbox": "none"}, "sandbox is 'none'; it must be one of best"), ({"rollouts_kept": -1}, "at least 0")):
        with pytest.raises(RheostatError, match=message):
            Settings("grpo", "chain-sum", **wrong)  # type: ignore[arg-type]
    settings = Settings("ppo", "CartPole-v1", seed=np.int64(3), offline=Path("data"), rewards=["a"], reward_weights=(1, np.float32(0.5)))  # type: ignore[arg-type]
    assert (settings.seed, settings.offline, settings.rewards, settings.reward_weights) == (3, "data", ("a",), (1.0, 0.5))
    assert type(settings.seed) is int and all(type(weight) is float for weight in settings.reward_weights)


EMPTY = {
    "box": Box(-1, 1, (0,)),
    "matrix": Box(-1, 1, (2, 0)),
    "image": Box(0, 255, (0, 4, 3), np.uint8),
    "dict": spaces.Dict({}),
    "tuple": spaces.Tuple(()),
    "dict of nothing": spaces.Dict({"a": Box(-1, 1, (0,)), "b": spaces.Dict({})}),
}


@pytest.mark.parametrize("name", EMPTY)
def test_observations_of_nothing(name: str) -> None:
    with pytest.raises(RheostatError, match="holds no number: give at least one"):
        make(lambda: Any_(EMPTY[name], spaces.Discrete(2)), num_envs=2, seed=0)


def test_an_entry_of_nothing_beside_others_is_nothing() -> None:
    space = spaces.Dict({"a": Box(-1, 1, (0,)), "b": Box(-1, 1, (2,)), "c": spaces.Dict({})})
    assert make(lambda: Any_(space, spaces.Discrete(2)), num_envs=2, seed=0).reset().shape == (2, 2)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Box(-1, 1, (0,)), "holds no number"),
        (spaces.Dict({}), "supported are a Box of floats"),
        (spaces.Discrete(2**40), "at most 65,536 values each"),
        (spaces.MultiDiscrete([3, 2**40]), "at most 65,536 values each"),
        (Box(-(2**62), 2**62, (1,), np.int64), "at most 65,536 values each"),
    ],
)
def test_actions_that_cannot_be_drawn(space: Any, message: str) -> None:
    with pytest.raises(RheostatError, match=message):
        make(lambda: Any_(Box(-1, 1, (2,)), space), num_envs=1, seed=0)


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        (np.int8, np.array([100, -128]), True),
        (np.int8, np.array([300, 0]), False),
        (np.uint8, np.array([-1, 0]), False),
        (np.uint8, [True, False], True),
        (np.int32, np.array([2**40, 0]), False),
        (np.int32, np.array([5, 2**31 - 1], np.uint64), True),
        (np.int64, np.array([2**63, 0], np.uint64), False),
    ],
)
def test_integers_never_wrap_around(dtype: Any, value: Any, fits: bool) -> None:
    limits = np.iinfo(dtype)

    class Counting(Any_):
        def reset(self, **options: Any) -> Any:
            return super().reset(**options)[0], {}

        def step(self, action: Any) -> Any:
            return (value, *super().step(action)[1:])

    environments = make(lambda: Counting(Box(limits.min, limits.max, (2,), dtype), spaces.Discrete(2)), num_envs=1, seed=0)
    environments.reset()
    if fits:
        assert environments.step(torch.zeros(1, dtype=torch.int64)).observation.tolist() == [
            [float(np.float32(int(each))) for each in value]
        ]
        return
    with pytest.raises(RheostatError, match=f"has values from .* which its observation_space of {np.dtype(dtype)} cannot hold"):
        environments.step(torch.zeros(1, dtype=torch.int64))


def test_a_trial_of_pools_frees_them_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool is a set of threads and simulators: none is left where the trial is broken off."""
    alive: list[Any] = []
    make_pool = EnvPoolEnvs("CartPole-v1", 2, 0, 1, {})._make

    class Watched:
        def __init__(self, rows: int, seed: int) -> None:
            self.pool = make_pool(rows, seed)
            alive.append(self)

        def close(self) -> None:
            alive.remove(self)
            self.pool.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.pool, name)

    assert draws_only_in_reset(Watched) and not alive
    assert not draws_only_in_reset(Watched, cap=1) and not alive  # no episode ended
    monkeypatch.setattr(RollingPools, "load_state_dict", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draws_only_in_reset(Watched)
    assert not alive


def test_what_is_restorable_says_how() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Restorable()  # type: ignore[abstract]
