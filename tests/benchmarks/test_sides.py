"""Every benchmark in its smallest form: our sides for real, the peers' where they are installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from benchmarks import control, language, off_policy, overhead
from rheostat.buffers import control_retainers
from tests.benchmarks.sides import answers

SMALL = {"threads": 1, "prompts": 2, "group": 4, "model": "untrained", "updates": 2}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Benchmarks set the number of threads of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """PPO on short rollouts, little random data."""
    for module, values in (
        (control, {"ROLLOUT": 128, "MINIBATCH": 64, "EPOCHS": 1, "OUR_ENVIRONMENTS": 8}),
        (control_retainers, {"OFFLINE_TURN": 2}),
        (off_policy, {"START": 40, "ROWS": 2000, "BATCH": 8, "HIDDEN": (8,)}),
        (language, {"BASE": "untrained", "PROMPTS": 2, "GROUP": 2, "VOCABULARY": 50, "HIDDEN": 8}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    off_policy.random_data.cache_clear()
    yield
    off_policy.random_data.cache_clear()


@pytest.mark.parametrize("name", overhead.SIDES)
def test_every_method_of_mixed_data_is_timed(name: str) -> None:
    (row,) = answers(overhead.side, name, SMALL, questions=[1])
    assert row["learned"] > 0 and row["trained"] > row["learned"] and row["flops"] > 0 and row["generated"] > 0


def test_our_language_side_says_where_its_seconds_go(small: None) -> None:
    (row,) = answers(language.ours, 1, 3, questions=[1])
    assert row["tokens"] > 0 and set(row["split"]) == {"generation", "update", "scoring"} and min(row["split"].values()) >= 0
    found = language.summarised([row, row])
    assert found["steps_per_second"] == [1 / row["seconds"]] * 2


@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_log_probabilities_over_a_vocabulary(small: None, kind: str) -> None:
    (found,) = answers(language.logprob_memory, kind, 6, 1, questions=[], greeted=False)
    (other,) = answers(language.logprob_memory, "plain", 6, 1, questions=[], greeted=False)
    assert found["checksum"] == pytest.approx(other["checksum"], rel=1e-5)


class Peer:
    """Stands for Stable-Baselines3's model, which not everybody has installed."""

    num_timesteps = 0

    def learn(self, steps: int, *, reset_num_timesteps: bool) -> None:
        assert not reset_num_timesteps
        self.num_timesteps += steps

    def get_env(self) -> Peer:
        return self

    def close(self) -> None: ...


def test_ppo_beside_a_peer(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    peer, said = Peer(), []
    monkeypatch.setattr(control, "fastest", lambda task, steps: (control.SETTINGS[0], peer))
    monkeypatch.setattr(control, "peak_memory", lambda side, task: 1.0)
    monkeypatch.setattr(control, "version", lambda package: "0")
    row = control.compare("CartPole-v1", repeats=2, steps=128, say=said.append)
    assert row.ours > 0 and peer.num_timesteps == 2 * 128 and len(said) == 5


def test_our_learning_curve(small: None) -> None:
    curve = control.learning_curve("ours", "CartPole-v1", 0, 4 * 128)
    assert len(curve) == control.POINTS and all(value > 5 for value in curve)


@pytest.mark.parametrize("name", ["sac", "td3", "iql", "cql"])
def test_off_policy_beside_itself(small: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    side = off_policy.comparisons()[name].ours
    row = off_policy.compare(off_policy.Comparison("x", "steps/s", "itself", side, side), turns=1, steps=2, say=lambda line: None)
    assert row.ours > 0 and row.theirs > 0 and len(row.turns) == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="needs stable-baselines3")
def test_ppo_beside_stable_baselines(small: None) -> None:
    row = control.compare("CartPole-v1", repeats=1, steps=128, say=lambda line: None)
    assert row.theirs > 0 and row.peak_memory_mb > 50


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl")
def test_grpo_beside_trl() -> None:
    found = language.measure(threads=1, turns=1, per_turn=1, tokens=8)
    assert {row["unit"] for row in found["rows"]} == {"steps/s", "generated tokens/s", "MB"}
