"""Checkpoints restart nothing, runs resume exactly or say that they do not, and opening a run steps no environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rheostat
from rheostat.errors import RheostatError
from rheostat.tasks.control import make
from rheostat.training.checkpoint import split_state
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings_from_options import settings_for
from tests.border.worlds import Curriculum, Held, Line, Noisy, Robot
from tests.tasks.test_environments import actions
from tests.tasks.test_state import require_exact_resume

PPO = {"batch_steps": 256, "minibatches": 2, "epochs": 1, "num_envs": 2, "hidden": (8,), "evaluation_episodes": 2, "steps": 2048}


def halted(method: str, task: Any, directory: Path, after: int, **options: Any) -> None:
    """A run that was stopped after so many turns of its loop, and saved there."""
    run = Run.create(directory, settings_for(method, task, **options), task=None if isinstance(task, str) else task)
    original, turns = run.method.improve, 0

    def improve(batch: Any) -> Any:
        nonlocal turns
        turns += 1
        if turns > after:
            raise KeyboardInterrupt
        return original(batch)

    run.method.improve = improve  # type: ignore[method-assign]
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        run.train()


@pytest.mark.parametrize("task", ["CartPole-v1", "FrozenLake-v1", Line])
def test_curves_do_not_depend_on_the_checkpoint_interval(task: Any, tmp_path: Path) -> None:
    rows = []
    for interval in (256, 1024, 100_000):
        run = rheostat.train("ppo", task, directory=tmp_path / str(interval), checkpoint_every=interval, progress=False, **PPO)
        rows.append((run.metrics, run.summary["evaluation_return"]))
    assert rows[0] == rows[1] == rows[2]


def test_the_curve_of_a_good_policy_shows_whole_episodes(tmp_path: Path) -> None:
    """Twenty checkpoints on the way: each used to cut every episode under way."""
    options = PPO | {
        "steps": 6144,
        "checkpoint_every": 256,
        "epochs": 4,
        "learning_rate": 3e-3,
        "hidden": (64, 64),
        "evaluation_episodes": 20,
    }
    run = rheostat.train("ppo", "CartPole-v1", directory=tmp_path / "run", progress=False, **options)
    assert run.metrics[-1]["episode_length"] == run.metrics[-1]["episode_return"]
    steps = run.method.context.collector
    assert sum(steps.lengths) + int(steps.running_length.sum()) <= run.method.steps
    if steps.episodes <= 100:
        assert sum(steps.lengths) + int(steps.running_length.sum()) == run.method.steps


@pytest.mark.parametrize("task", ["CartPole-v1", "FrozenLake-v1", Line, Curriculum, Held])
def test_a_run_that_was_killed_ends_where_the_other_one_does(task: Any, tmp_path: Path) -> None:
    options = PPO | {"checkpoint_every": 512}
    whole = rheostat.train("ppo", task, directory=tmp_path / "whole", progress=False, **options)
    halted("ppo", task, tmp_path / "halted", after=5, **options)
    again = rheostat.resume(tmp_path / "halted", task=None if isinstance(task, str) else task, progress=False)
    assert again.metrics == whole.metrics
    one, other = (split_state(run.method.state_dict())[1] for run in (whole, again))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("task", ["CartPole-v1", "FrozenLake-v1"])
def test_a_pool_is_renewed_by_count_and_no_episode_is_cut(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import rheostat.tasks.control.pools as pools

    monkeypatch.setattr(pools, "UNDECIDED", 16)
    monkeypatch.setattr(pools, "BOUNDS", {"classic_control": (40, 40), "toy_text": (40, 400)})
    first, second = make(task, num_envs=3, seed=5), make(task, num_envs=3, seed=99)
    first.reset()
    lengths, running = [], torch.zeros(3)
    for action in actions(first, 700):
        step = first.step(action)
        running += step.valid
        for row in (step.terminated | step.truncated).nonzero().flatten().tolist():
            lengths.append((bool(step.truncated[row]), float(running[row])))
            running[row] = 0
    assert first._envs._pools.renewals >= 2  # type: ignore[union-attr]
    assert len(lengths) > 30 and not any(cut and length < 100 for cut, length in lengths)
    require_exact_resume(first, second, before=37, after=400)


def test_a_renewal_under_way_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make("CartPole-v1", num_envs=4, seed=5), make("CartPole-v1", num_envs=4, seed=99)
    first.reset()
    commands = actions(first, 200)
    for index, action in enumerate(commands[:100]):
        seen = first.step(action)
        if index == 85:
            first._envs._pools.renew()  # type: ignore[union-attr]
    assert len(first._envs._pools.pools) == 2, "otherwise this tests nothing"  # type: ignore[union-attr]
    assert torch.equal(second.load_state_dict(first.state_dict()), seen.observation)
    for action in commands[100:]:
        mine, theirs = first.step(action), second.step(action)
        assert torch.equal(mine.next_observation, theirs.next_observation) and torch.equal(mine.reward, theirs.reward)


@pytest.mark.parametrize(("world", "why"), [(Noisy, "went another way"), (Robot, "cannot be replayed")])
def test_what_cannot_be_repeated_begins_new_episodes_and_says_so(world: Any, why: str, tmp_path: Path) -> None:
    options = PPO | {"checkpoint_every": 512}
    halted("ppo", world, tmp_path / "run", after=5, **options)
    with pytest.warns(UserWarning, match=why):
        run = rheostat.resume(tmp_path / "run", task=world, progress=False)
    assert run.finished and any(why in sentence for sentence in run.summary["warnings"])


@pytest.mark.parametrize("method", ["ppo", "sac"])
@pytest.mark.parametrize("world", [Line, Noisy])
def test_opening_a_run_takes_no_step(method: str, world: Any, tmp_path: Path) -> None:
    options = PPO if method == "ppo" else {"steps": 300, "start_steps": 100, "hidden": (8,), "replay_capacity": 1000}
    trained = rheostat.train(method, world, directory=tmp_path / "run", progress=False, **options)
    observation = np.array([0.5], np.float32)
    expected = trained.policy(observation)
    for task in (None, fails):
        run = rheostat.load(tmp_path / "run", task=task)
        assert np.array_equal(run.policy(observation), expected) and run.finished
    with pytest.raises(RheostatError, match="task="):
        rheostat.load(tmp_path / "run").evaluate(2)
    assert np.isfinite(rheostat.load(tmp_path / "run", task=world).evaluate(2)["evaluation_return"])


def fails() -> Any:
    raise AssertionError("the environment was made")


def test_a_policy_is_measured_in_another_environment(tmp_path: Path) -> None:
    run = rheostat.train("ppo", Line, directory=tmp_path / "run", progress=False, **PPO)
    assert run.evaluate(4, task=lambda: Line(length=3))["evaluation_length"] == 3
    assert run.evaluate(4)["evaluation_length"] == 10
    with pytest.raises(RheostatError, match="evaluate it where they agree"):
        run.evaluate(4, task="CartPole-v1")


def test_long_replays_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import rheostat.tasks.control.recording as recording

    monkeypatch.setattr(recording, "LONGEST", 30)
    first, second = make(lambda: Line(length=100), num_envs=1, seed=0), make(lambda: Line(length=100), num_envs=1, seed=0)
    first.reset()
    for action in actions(first, 50):
        first.step(action)
    second.load_state_dict(first.state_dict())
    assert not second.can_save and "too long" in second.warnings[0]
