"""Environments as users write them: one object, one port, any info, any spaces, and errors that are theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rheostat
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.tasks.control import make
from rheostat.tasks.control.copies import whose
from rheostat.tasks.control.facts import space_from_json, space_to_json
from tests.border.worlds import Line

PPO = {
    "steps": 64,
    "batch_steps": 64,
    "minibatches": 2,
    "num_envs": 2,
    "epochs": 1,
    "hidden": (8,),
    "evaluation_episodes": 2,
    "progress": False,
}
SAC = {"steps": 120, "start_steps": 60, "hidden": (8,), "batch_size": 16, "replay_capacity": 1000, "progress": False}
Box = spaces.Box


class Any_(gymnasium.Env):
    """Any spaces; strict about the actions it gets."""

    def __init__(self, observation: Any, action: Any) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), f"{action!r} of {getattr(action, 'dtype', type(action))}"
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 7, False, {}


OBSERVATIONS = {
    "float64": Box(-np.inf, np.inf, (3,), np.float64),
    "multibinary matrix": spaces.MultiBinary((2, 3)),
    "multidiscrete matrix": spaces.MultiDiscrete([[3, 4], [2, 2]]),
    "discrete": spaces.Discrete(5, start=-2),
    "matrix": Box(-1, 1, (3, 4), np.float32),
    "scalar": Box(-1, 1, (), np.float32),
    "nested": spaces.Dict(
        {"z": spaces.Dict({"p": Box(-1, 1, (2,), np.float32)}), "a": spaces.Tuple((spaces.Discrete(2), Box(0, 1, (1,), np.float32)))}
    ),
    "tuple": spaces.Tuple((spaces.Discrete(3), Box(-1, 1, (2,), np.float64))),
    "image": Box(0, 255, (20, 20, 3), np.uint8),
    "frames": Box(0, 255, (2, 20, 20, 3), np.uint8),
    "camera and vector": spaces.Dict({"cam": Box(0, 255, (16, 16, 3), np.uint8), "v": Box(-1, 1, (2,), np.float32)}),
    "two cameras": spaces.Tuple((Box(0, 255, (16, 16), np.uint8), Box(0, 255, (3, 12, 12), np.uint8))),
}
ACTIONS = {
    "float64": Box(-0.1, 0.3, (2,), np.float64),
    "uneven": Box(np.array([-3.0, 0.1], np.float32), np.array([0.7, 10.0], np.float32)),
    "matrix": Box(-1, 1, (2, 2), np.float32),
    "scalar": Box(-1, 1, (), np.float32),
    "half": Box(0, np.inf, (2,), np.float32),
    "discrete": spaces.Discrete(3, start=-1),
    "multidiscrete matrix": spaces.MultiDiscrete([[3, 2], [2, 2]]),
    "multibinary matrix": spaces.MultiBinary((2, 2)),
    "integers": Box(0, 4, (2, 2), np.int32),
    "bytes": Box(0, 255, (2,), np.uint8),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_a_policy_reads_whatever_it_was_trained_on(name: str, tmp_path: Path) -> None:
    space, action = OBSERVATIONS[name], spaces.Discrete(3, start=4)
    images = name in ("image", "frames")
    options = {key: value for key, value in PPO.items() if not (images and key == "hidden")}
    rheostat.train("ppo", lambda: Any_(space, action), directory=tmp_path / "run", **options)
    run = rheostat.load(tmp_path / "run")  # without the environment
    raw = [Any_(space, action).reset(seed=k)[0] for k in range(3)]
    one = [run.policy(each) for each in raw]
    assert all(action.contains(each) for each in one)
    from gymnasium.vector.utils import concatenate, create_empty_array

    together = concatenate(space, raw, create_empty_array(space, n=3))
    assert run.policy(together).tolist() == [int(each) for each in one]
    assert str(space_from_json(space_to_json(space))) == str(space)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_policy_answers_in_the_action_space(name: str, tmp_path: Path) -> None:
    space = ACTIONS[name]
    run = rheostat.train("ppo", lambda: Any_(Box(-1, 1, (2,)), space), directory=tmp_path / "run", **PPO)
    assert run.summary["evaluation_return"] == 7
    action = run.policy(np.array([0.3, -0.2], np.float32))
    assert space.contains(action), (action, action.dtype)
    assert all(space.contains(each) for each in run.policy(np.zeros((4, 2), np.float32)))


def test_pictures_inside_a_dict_are_scaled_and_have_a_network_of_their_own() -> None:
    space = OBSERVATIONS["camera and vector"]
    environments = make(lambda: Any_(space, spaces.Discrete(2)), num_envs=2, seed=0)
    raw = Any_(space, spaces.Discrete(2)).reset(seed=3)[0]
    encoded, single = environments.encode(raw)
    assert single and encoded.shape == (1, 3 * 16 * 16 + 2) and encoded[:, :-2].min() >= 0 and encoded[:, :-2].max() <= 1
    picture = torch.from_numpy(np.moveaxis(raw["cam"], -1, 0) / np.float32(255))
    torch.testing.assert_close(encoded[0, : 3 * 16 * 16].view(3, 16, 16), picture)
    from rheostat.policies.control.actor_critic import ActorCritic
    from rheostat.policies.control.pixels import Pixels

    network = ActorCritic(environments.observation_space, environments.action_space)
    assert sum(isinstance(module, Pixels) for module in network.modules()) == 1
    assert network.distribution(encoded).logits.shape == (1, 2)


@pytest.mark.parametrize(
    "infos",
    [[None, 3], [3, None], [1, "late"], [np.arange(1), np.arange(3)], [np.zeros(2), 1.0], [{"a": 1}, 1.0], [object(), []]],
    ids=lambda infos: " ".join(type(info).__name__ for info in infos),
)
def test_info_never_stops_training(infos: list[Any]) -> None:
    class Talking(Line):
        def step(self, action: np.ndarray) -> Any:
            return (*super().step(action)[:4], {"x": infos[self.t % 2]})

        def reset(self, **options: Any) -> Any:
            return super().reset(**options)[0], {"x": infos[0]}

    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    for task in (Talking, *(SyncVectorEnv([Talking] * 2, autoreset_mode=mode) for mode in AutoresetMode)):
        environments = make(task, num_envs=2, seed=0)
        environments.reset()
        for _ in range(25):
            step = environments.step(torch.zeros(2, 1))
        assert len(step.info["infos"]) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda o: ({"a": o}, 0.0, False, False, {}), r"environment 0 of .* lacks 'k'"),
        (lambda o: ({"a": o[None], "k": 1}, 0.0, False, False, {}), r"\['a'\] of environment 0 .*shape \[1, 1\]"),
        (lambda o: ({"a": o, "k": 1}, None, False, False, {}), "reward of environment 0 .* None"),
        (lambda o: ({"a": o, "k": 1}, 0.0, False, {}), "4 values"),
        (lambda o: ({"a": o, "k": 1}, 0.0, "no", False, {}), "terminated of environment 0"),
    ],
)
def test_what_is_malformed_is_named(answer: Any, message: str) -> None:
    class Wrong(Line):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict({"a": Box(-1, 1, (1,), np.float32), "k": spaces.Discrete(4)})

        def reset(self, **options: Any) -> Any:
            return {"a": super().reset(**options)[0], "k": 0, "more": 3}, {}

        def step(self, action: np.ndarray) -> Any:
            return answer(super().step(action)[0])

    environments = make(Wrong, num_envs=1, seed=0)
    environments.reset()
    with pytest.raises(RheostatError, match=message):
        environments.step(torch.zeros(1, 1))


@pytest.mark.parametrize("reward", [np.array([1.0]), np.array(1.0), [1.0], torch.tensor(1.0), True, np.float32(1)])
def test_rewards_and_flags_of_any_type(reward: Any) -> None:
    class Odd(Line):
        def step(self, action: np.ndarray) -> Any:
            return super().step(action)[0], reward, np.array([self.t == 3]), None, {}

    environments = make(Odd, num_envs=1, seed=0)
    environments.reset()
    steps = [environments.step(torch.zeros(1, 1)) for _ in range(3)]
    assert [step.reward.item() for step in steps] == [1, 1, 1] and [step.terminated.item() for step in steps] == [False, False, True]


class OnePort(Line):
    """Only one of these can exist at a time."""

    alive = most = 0

    def __init__(self) -> None:
        super().__init__()
        if OnePort.alive:
            raise OSError("[Errno 98] Address already in use")
        OnePort.alive += 1
        OnePort.most = max(OnePort.most, OnePort.alive)

    def close(self) -> None:
        OnePort.alive -= 1


def test_an_evaluation_makes_no_more_copies_than_training(tmp_path: Path) -> None:
    OnePort.alive = OnePort.most = 0
    run = rheostat.train("sac", OnePort, directory=tmp_path / "run", **SAC)
    assert run.summary["evaluation_episodes"] == 10 and OnePort.most == 1


def test_the_result_of_an_evaluation_does_not_depend_on_the_copies(tmp_path: Path) -> None:
    found = []
    for copies in (1, 2, 5):
        run = rheostat.train("ppo", Line, directory=tmp_path / str(copies), **(PPO | {"num_envs": copies, "batch_steps": 60, "steps": 60}))
        environments = [make(Line, num_envs=k, seed=7) for k in (1, 3, 10)]
        from rheostat.collect.control.evaluation_episodes import run_episodes

        results = [run_episodes(lambda seen: run.method.context.act_on_target(seen).mode(), each, 10)[0] for each in environments]  # noqa: B023
        np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
        np.testing.assert_allclose(results[0], results[2], rtol=1e-5)
        found.append(run)


@pytest.mark.parametrize("method", ["ppo", "sac"])
def test_one_object_is_used_in_turn(method: str, tmp_path: Path) -> None:
    options = PPO | {"num_envs": 1} if method == "ppo" else SAC | {"evaluate_every": 50, "evaluate_episodes": 2}
    run = rheostat.train(method, Line(), directory=tmp_path / "run", **options)
    assert run.finished and np.isfinite(run.summary["evaluation_return"])
    if method == "sac":  # looking in between changed nothing
        plain = rheostat.train(method, Line(), directory=tmp_path / "plain", **SAC)
        assert plain.summary["evaluation_return"] == run.summary["evaluation_return"]


def test_a_vector_environment_is_evaluated_with_its_own_copies(tmp_path: Path) -> None:
    vector = gymnasium.vector.SyncVectorEnv([Line] * 2)
    run = rheostat.train("ppo", vector, directory=tmp_path / "run", **PPO)
    assert run.finished and run.summary["evaluation_episodes"] == 2


class Breaking(Line):
    """Goes wrong when it is evaluated, or when it is told to."""

    steps, at, made, most = 0, -1, 0, 99

    def __init__(self) -> None:
        super().__init__()
        Breaking.made += 1

    def step(self, action: np.ndarray) -> Any:
        Breaking.steps += 1
        if Breaking.steps == Breaking.at or Breaking.made > Breaking.most:
            raise ConnectionError("the simulator went away")
        return super().step(action)


def test_a_failing_evaluation_loses_nothing(tmp_path: Path) -> None:
    Breaking.steps, Breaking.at, Breaking.made, Breaking.most = 0, -1, 0, 2  # the third copy is the evaluation's
    with pytest.raises(ConnectionError, match="went away") as caught:
        rheostat.train("ppo", Breaking, directory=tmp_path / "run", **PPO)
    assert any("Training is complete" in note for note in caught.value.__notes__)
    run = rheostat.load(tmp_path / "run")
    assert run.finished and run.method.steps >= 64 and "failed" in run.summary["warnings"][0]
    Breaking.most = 99
    assert np.isfinite(rheostat.load(tmp_path / "run", task=Breaking).evaluate(2)["evaluation_return"])


def test_an_error_of_the_environment_is_its_own(tmp_path: Path) -> None:
    Breaking.steps, Breaking.at, Breaking.most = 0, 20, 99
    with pytest.raises(ConnectionError, match="went away") as caught:
        rheostat.train("ppo", Breaking, directory=tmp_path / "run", **PPO)
    assert whose(caught.value) == "Breaking" and any("its step()" in note for note in caught.value.__notes__)


MODULE = """
import gymnasium, numpy as np
from tests.border.worlds import Line
class Bad(Line):
    def step(self, action):
        raise OSError("no such port")
gymnasium.register("Line-v0", Line)
gymnasium.register("Bad-v0", Bad)
"""


def test_modules_are_found_where_the_command_is_given(tmp_path: Path) -> None:
    """In a process of its own whose script directory is elsewhere, as a console script's is."""
    (tmp_path / "worlds_of_mine.py").write_text(MODULE)
    here = str(Path(__file__).parents[2])
    code = f"import sys; sys.path = [*filter(None, sys.path), {here!r}]; from rheostat.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "train", "ppo"]
    options = [
        "--steps",
        "64",
        "--batch-steps",
        "64",
        "--minibatches",
        "2",
        "--num-envs",
        "2",
        "--epochs",
        "1",
        "--evaluation-episodes",
        "1",
    ]
    good = subprocess.run([*command, "worlds_of_mine:Line-v0", *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr[-2000:]
    bad = subprocess.run([*command, "worlds_of_mine:Bad-v0", *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bad.returncode == 1 and "OSError: no such port" in bad.stderr and "worlds_of_mine.py" in bad.stderr
    assert "make room" not in bad.stderr and "training/run.py" not in bad.stderr


def test_a_missing_module_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "ppo", "nowhere_at_all:Line-v0"])
    assert "no module 'nowhere_at_all'" in capsys.readouterr().err
