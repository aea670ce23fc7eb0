"""Runs: exact resume, refusals, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import rheostat
from rheostat.errors import RheostatError
from rheostat.training.run import Interrupted, Run
from tests.crash import crash, differences
from tests.tiny_control import CONTROL, ON_POLICY, acts_in, backends, flags, random_data, replays, small, small_options


class StopAfter:
    """A progress display that asks the run to stop, as Ctrl-C would, after so many turns."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    def start(self, done: int, total: int, unit: str) -> None: ...
    def stop(self) -> None: ...
    def note(self, text: str) -> None: ...

    def update(self, done: int, metrics: dict[str, Any]) -> None:
        self.turns -= 1
        if self.turns == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def places() -> list[object]:
    """Every method on one backend, and on both where it differs from its relatives in how it collects; the rest runs every night."""
    found = []
    for method in CONTROL:
        for backend in backends(method):
            quick = backend == "auto" or method in ("ppo", "props", "sac", "iql") or (backend == "gymnasium") == replays(method)
            found.append(pytest.param(method, backend, id=f"{method}-{backend}", marks=() if quick else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("method", "backend"), places())
def test_stopping_anywhere_changes_nothing(method: str, backend: str, tmp_path: Path) -> None:
    """Train 2N == train N, stop between two checkpoints, load in a new object, train N."""
    whole = Run.create(tmp_path / "whole", small(method, backend=backend)).train()
    assert whole.finished
    halted = Run.create(tmp_path / "halted", small(method, backend=backend))
    with pytest.raises(Interrupted, match="rheostat resume"):
        halted.train(progress=StopAfter(7))  # off the checkpoints
    continued = Run.load(tmp_path / "halted").train()
    assert continued.metrics == whole.metrics
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_same_seed_same_result_other_seed_other_result(tmp_path: Path) -> None:
    runs = [Run.create(tmp_path / str(i), small("ppo", seed=seed)).train().metrics for i, seed in enumerate((3, 3, 4))]
    assert runs[0] == runs[1] != runs[2]


def test_evaluating_never_changes_training(tmp_path: Path) -> None:
    plain = Run.create(tmp_path / "plain", small("ppo"))
    watched = Run.create(tmp_path / "watched", small("ppo"))
    watched.method.evaluate(3)
    assert plain.train().metrics == watched.train().metrics


@pytest.mark.slow
@pytest.mark.parametrize("method", CONTROL)
def test_crash_harness(method: str) -> None:
    """Twenty times the small run; what begins with a data set is killed in both phases."""
    task = acts_in(method)
    options = small_options(method, task)
    steps, online = 20 * options.pop("steps"), 20 * options.pop("online_steps", 0)
    words = flags(options | {"checkpoint_every": (steps + online) // 12} | ({"online_steps": online} if online else {}))
    del words[words.index("--evaluation-episodes") : words.index("--evaluation-episodes") + 2]
    crash(method, task, kills=6, steps=steps, options=words)


def test_crash_harness_quick() -> None:
    counts = crash("ppo", "CartPole-v1", kills=1, steps=40_000, options=["--checkpoint-every", "2500", "--epochs", "2"], seed=1)
    assert sum(counts.values()) == 1


@pytest.mark.slow
def test_crash_harness_quick_after_a_data_set() -> None:
    """Killed while it acts: the replay that began with the data set comes back with what was added since."""
    few = {"num_envs": 2, "batch_size": 16, "hidden": (8,), "replay_capacity": 1000, "log_every": 20}
    options = {"offline": random_data("Pendulum-v1"), "online_steps": 1000, "checkpoint_every": 100}
    counts = crash("iql", "Pendulum-v1", kills=2, steps=100, after=120, options=flags(few | options), seed=3)
    assert sum(counts.values()) == 2


def test_a_damaged_checkpoint_is_named_and_the_previous_one_continues(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("ppo"))
    with pytest.raises(Interrupted):
        run.train(progress=StopAfter(12))
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    (newest / "state.safetensors").write_bytes(b"garbage")
    again = Run.load(tmp_path / "run")
    assert len(again.warnings) == 1 and newest.name in again.warnings[0]
    whole = Run.create(tmp_path / "whole", small("ppo")).train()
    assert again.train().metrics == whole.metrics


def test_refusals(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("ppo")).train()
    with pytest.raises(RheostatError, match="is finished"):
        run.train()
    with pytest.raises(RheostatError, match="is finished"):
        rheostat.resume(tmp_path / "run", progress=False)
    with pytest.raises(RheostatError, match="already holds a run"):
        Run.create(tmp_path / "run", small("ppo"))
    with pytest.raises(RheostatError, match="There is no run in"):
        Run.load(tmp_path / "nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RheostatError, match="not an empty directory"):
        Run.create(tmp_path / "full", small("ppo"))
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(RheostatError, match=r"config.json is damaged"):
        Run.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "task", "options", "sentence"),
    [
        ("pop", "CartPole-v1", {}, "Unknown method 'pop': did you mean"),
        ("ppo", "CartPole-v7", {}, "CartPole-v1"),
        ("ppo", "CartPole-v1", {"learning_rat": 1.0}, "did you mean learning_rate"),
        ("ppo", "CartPole-v1", {"num_envs": 3, "batch_steps": 64}, "do not divide over 3 environments"),
        ("ppo", "CartPole-v1", {"minibatches": 0}, "minibatches is 0"),
        ("ppo", "CartPole-v1", {"minibatches": 5000}, "use at most"),
        ("ppo", "CartPole-v1", {"epochs": "many"}, "must be of type int"),
        ("ppo", "CartPole-v1", {"activation": "gelu"}, "must be one of tanh, relu"),
        ("ppo", "CartPole-v1", {"steps": 0}, "steps is 0"),
        ("props", "CartPole-v1", {"preset": "hoper"}, "did you mean hopper"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_written(
    tmp_path: Path, method: str, task: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RheostatError) as error:
        rheostat.train(method, task, directory=tmp_path / "run", progress=False, **({"steps": 500} | options))
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


class Broken(gymnasium.Env):
    """A world whose third reward is NaN."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(2, np.float32), float("nan") if self.steps == 3 else 0.0, False, False, {}


def test_a_world_that_returns_nan_is_named(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="reward"):
        rheostat.train("ppo", Broken, directory=tmp_path / "run", progress=False, steps=500, **ON_POLICY)
    assert (tmp_path / "run" / "checkpoints").exists()


def test_bring_your_own_environment_and_network(tmp_path: Path) -> None:
    class Mine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Linear(4, 2)
            self.critic = torch.nn.Linear(4, 1)

        def distribution(self, observation: torch.Tensor) -> Any:
            from rheostat.policies.control.distributions import Categorical

            return Categorical(self.logits(observation))

        def value(self, observation: torch.Tensor) -> torch.Tensor:
            return self.critic(observation).squeeze(-1)

    options = {name: value for name, value in ON_POLICY.items() if name != "hidden"}
    run = rheostat.train(
        "ppo", lambda: gymnasium.make("CartPole-v1"), policy=Mine(), directory=tmp_path / "run", progress=False, steps=500, **options
    )
    assert run.policy(np.zeros(4, np.float32)) in (0, 1)
    assert run.policy(np.zeros((5, 4), np.float32)).shape == (5,)
    with pytest.raises(RheostatError, match="expects observations of shape"):
        run.policy(np.zeros(3))
    with pytest.raises(RheostatError, match=r"network of your own .*Mine"):
        rheostat.load(tmp_path / "run")
    again = rheostat.load(tmp_path / "run", task=lambda: gymnasium.make("CartPole-v1"), policy=Mine())
    assert again.finished and again.policy(np.zeros(4)) == run.policy(np.zeros(4))


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    run = rheostat.train(
        "ppo", "CartPole-v1", directory=tmp_path / "run", progress=False, steps=500, **(ON_POLICY | {"evaluation_episodes": 2})
    )
    for file in ("config.json", "metrics.jsonl", "timings.jsonl", "summary.json", "curves.png", "report.html"):
        assert (tmp_path / "run" / file).stat().st_size > 0, file
    description = json.loads((tmp_path / "run" / "config.json").read_text())
    assert description["settings"]["config"]["update"]["learning_rate"] == 3e-4 and "torch" in description["versions"]
    row = run.metrics[-1]
    for name in (
        "meter/ess",
        "meter/kl_behaviour_k3",
        "meter/ratio_median",
        "meter/clip_fraction",
        "meter/age_mean",
        "entropy",
        "policy_loss",
    ):
        assert name in row, name
    assert run.summary["evaluation_episodes"] == 2
    assert not (tmp_path / "run" / "rollouts").exists()  # there is no text to keep


def test_training_in_a_thread_does_not_touch_signals(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run = Run.create(tmp_path / "run", small("ppo"))
    worker = threading.Thread(target=run.train)
    worker.start()
    worker.join()
    assert run.finished and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("method", [name for name in CONTROL if not replays(name)])
def test_measurements_while_training_come_at_their_steps_and_resume_exactly(method: str, tmp_path: Path) -> None:
    """Before the first update, at fixed steps, and at the end: what an evaluation by hand finds at that moment."""
    options = {"evaluate_every": 128, "evaluate_episodes": 2}
    run = Run.create(tmp_path / "run", small(method, **options))
    first = run.method.evaluate(2)
    run.train()
    rows = [row for row in run.metrics if "evaluation_return" in row]
    assert rows[0]["iteration"] == rows[0]["steps"] == rows[0]["updates"] == 0 and first.items() <= rows[0].items()
    assert [row["steps"] // 128 for row in rows[:-1]] == list(range(len(rows) - 1)) and len(rows) == -(-run.settings.steps // 128) + 1
    assert rows[-1]["steps"] == run.method.steps and run.method.evaluate(2).items() <= rows[-1].items()
    halted = Run.create(tmp_path / "halted", small(method, **options))
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(4))
    assert Run.load(tmp_path / "halted").train().metrics == run.metrics
    with pytest.raises(RheostatError, match="evaluate_every is 0"):
        small(method, evaluate_episodes=2)
