"""From reward-free data to a policy for a reward that was never seen, by commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rheostat.analysis.later_rewards import evaluate_goal, evaluate_rewards, pursue
from rheostat.buffers.offline import OfflineData
from rheostat.cli.entry import parse
from rheostat.errors import RheostatError
from rheostat.training.datasets import make_dataset
from rheostat.training.exploring import Novelty
from rheostat.training.run import Run
from tests.tiny_control import random_data, small

MAZE = "point-maze"
REWARDS = "def right(x):\n    return x[:, 0]\n\ndef up(x):\n    return x[:, 1]\n\ndef still(x):\n    return 0 * x[:, 0]\n\nnumber = 3\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    options = {"steps": 10, "evaluation_episodes": 0, "offline": random_data(MAZE)}
    Run.create(tmp_path / "run", small("td-jepa", MAZE, **options)).train()
    (tmp_path / "mine.py").write_text(REWARDS)
    return tmp_path


def test_a_run_is_evaluated_for_rewards_it_never_saw(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(run / "run"), "--episodes", "3"]
    parse([*words, "--reward", f"{run / 'mine.py'}:right", f"{run / 'mine.py'}:up", "--json"]).run()
    rows = json.loads(capsys.readouterr().out)["rewards"]
    assert [row["reward"] for row in rows] == ["right", "up"]
    assert all(row["low"] <= row["return"] <= row["high"] and abs(row["return"]) <= 50 and row["episodes"] == 3 for row in rows)
    opened = Run.load(run / "run")
    assert evaluate_rewards(opened, [f"{run / 'mine.py'}:right", f"{run / 'mine.py'}:up"], 3) == rows
    parse([*words, "--reward", f"{run / 'mine.py'}:right"]).run()
    assert "right" in capsys.readouterr().out
    parse([*words, "--goal", "0.5", "0.5", "--goal-distance", "9", "--json"]).run()
    assert json.loads(capsys.readouterr().out)["goal_reached"] == 1.0
    assert evaluate_goal(opened, (0.5, 0.5), 9.0, 3)["goal_reached"] == 1.0


def test_a_policy_pursues_what_it_is_told(run: Path) -> None:
    opened, here = Run.load(run / "run"), torch.zeros(2).numpy()
    pursue(opened, reward=lambda x: x[:, 0])
    one = opened.policy(here)
    pursue(opened, reward=lambda x: -x[:, 0])
    assert (opened.policy(here) != one).any()
    pursue(opened, goal=(0.1, 0.2))
    assert opened.policy(here).shape == (2,)
    with pytest.raises(RheostatError, match="leave one out"):
        pursue(opened, reward=lambda x: x[:, 0], goal=(0.1, 0.2))
    with pytest.raises(RheostatError, match="arbitrary"):
        pursue(opened, reward=lambda x: 0 * x[:, 0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--reward", "FILE:still"], "so the direction of its task is arbitrary"),
        (["--reward", "FILE:number"], "is a int: name a function of the observation"),
        (["--reward", "FILE:down"], "down"),
        (["--goal", "0.5"], "an observation of 2 finite numbers; 1 were given"),
        (["--goal", "0.5", "0.5", "--reward", "FILE:up"], "leave --reward or --goal out"),
        (["--goal-distance", "0.5"], "name the goal too"),
    ],
)
def test_what_cannot_be_asked(run: Path, words: list[str], sentence: str) -> None:
    words = [word.replace("FILE", str(run / "mine.py")) for word in words]
    with pytest.raises(RheostatError, match=sentence):
        parse(["evaluate", str(run / "run"), *words]).run()


def test_a_policy_of_one_reward_cannot_be_asked_for_another(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", small("bc", MAZE, steps=10, checkpoint_every=10, evaluation_episodes=0)).train()
    with pytest.raises(RheostatError, match="which bc has none for: use forward-backward or laplacian or td-jepa"):
        parse(["evaluate", str(tmp_path / "run"), "--goal", "0", "0"]).run()


def test_data_get_another_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(REWARDS)
    source = random_data(MAZE)
    words = ["dataset", "relabel", source, "--reward", f"{tmp_path / 'mine.py'}:right", "--output", str(tmp_path / "new"), "--json"]
    parse(words).run()
    old, new = OfflineData.load(source), OfflineData.load(tmp_path / "new")
    assert torch.equal(new.transitions.reward, old.transitions.next_observation[:, 0])
    assert torch.equal(new.transitions.observation, old.transitions.observation) and torch.equal(new.breaks, old.breaks)
    assert json.loads(capsys.readouterr().out)["facts"]["reward"] == "right"
    with pytest.raises(RheostatError, match="already holds a data set"):
        parse(words).run()


def test_data_that_look_for_what_is_new(tmp_path: Path) -> None:
    one, same, other = (make_dataset(MAZE, "rnd", 200, seed, reference=False, num_envs=4) for seed in (0, 0, 1))
    assert len(one) == 200 and one.digest == same.digest != other.digest
    assert one.facts["kind"] == "rnd" and "novelty" in one.behaviour and "rnd --steps 200" in one.facts["command"]
    assert set(one.transitions.reward.tolist()) <= {0.0, 1.0}  # the environment's own, not the bonus


def test_what_was_met_often_is_no_longer_new() -> None:
    novelty = Novelty(2, torch.Generator().manual_seed(0))
    often = torch.randn(512, 2, generator=torch.Generator().manual_seed(1)) * 0.1
    for _ in range(30):
        novelty(often)
    bonus = novelty(torch.cat([often[:256], torch.full((1, 2), 1.0)]))
    assert bool((bonus >= 0).all()) and float(bonus[-1]) > 3 * float(bonus[:-1].mean())


def test_images_are_not_explored() -> None:
    with pytest.raises(RheostatError, match="shows images: use the kind random"):
        make_dataset("Pong-v5", "rnd", 10, reference=False, num_envs=1)
