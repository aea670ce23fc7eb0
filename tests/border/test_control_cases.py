"""What users bring to control methods, end to end: actions from 10 on, policies that are opened again, runs that only read data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import rheostat
from rheostat.cli.entry import main
from rheostat.streams import derive_seed
from tests.border.test_flat_files import SMALL, TASK, columns, write
from tests.border.worlds import Line


class Repeat(gymnasium.Env):
    """The right choice is 10 or 11, as the observation says; strict about what it is handed."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2, start=10)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.side = int(self.np_random.integers(2))
        return np.array([self.side], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        return np.array([self.side], np.float32), float(action == 10 + self.side), True, False, {}


def test_choices_that_do_not_begin_at_0(tmp_path: Path) -> None:
    side = np.arange(60) % 2
    choice = np.random.default_rng(0).integers(0, 2, 60)
    data = {
        "observations": side[:, None].astype(np.float32),
        "next_observations": side[:, None].astype(np.float32),
        "actions": choice,  # files of this kind number them from 0
        "rewards": (choice == side).astype(np.float32),
        "terminals": np.ones(60, bool),
    }
    options = SMALL | {"steps": 150, "learning_rate": 1e-2, "tau": 0.2, "inverse_temperature": 20.0, "evaluation_episodes": 8}
    run = rheostat.train("iql", Repeat, offline=data, directory=tmp_path / "run", **options)
    assert run.summary["evaluation_return"] == 1
    assert [int(run.policy(np.array([k], np.float32))) for k in (0, 1)] == [10, 11]


@pytest.mark.parametrize("method", ["sac", "iql"])
def test_an_opened_policy_is_the_one_that_was_trained(method: str, tmp_path: Path) -> None:
    options = SMALL | {"steps": 60, "evaluation_episodes": 3}
    options |= (
        {"offline": columns(), "repair": {"unknown_end": "truncate"}} if method == "iql" else {"start_steps": 20, "replay_capacity": 100}
    )
    run = rheostat.train(method, Line, directory=tmp_path / "run", **options)
    again = rheostat.load(tmp_path / "run", task=Line)
    assert again.evaluate(3)["evaluation_return"] == run.summary["evaluation_return"]
    seed, returns = derive_seed(run.settings.seed, "evaluation", run.method.updates), []
    for episode in range(3):
        world, total, over = Line(), 0.0, False
        observation, _ = world.reset(seed=seed + episode)
        while not over:
            observation, reward, terminated, truncated, _ = world.step(again.policy(observation))
            total, over = total + reward, terminated or truncated
        returns.append(total)
    assert np.mean(returns) == pytest.approx(run.summary["evaluation_return"], rel=1e-5)


def test_a_run_that_only_reads_data_misses_no_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "line.npz", columns())
    flags = ["--steps", "20", "--hidden", "8", "--batch-size", "8", "--evaluation-episodes", "1", "--directory", str(tmp_path / "run")]
    main(["train", "iql", TASK, "--offline", path, "--repair.unknown-end", "truncate", *flags])
    assert "No episode has ended" not in capsys.readouterr().out


def test_the_help_of_data_sets_shows_no_notes_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dataset", "--help"])
    assert "prefix" not in capsys.readouterr().out
