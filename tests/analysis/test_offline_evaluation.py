"""Off-policy evaluation of a policy from a data set: against the truth where it is known, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.analysis.offline_evaluation import FQEConfig, evaluate_offline
from rheostat.buffers.offline import OfflineData
from rheostat.cli.entry import main
from rheostat.collect.control.offline_data import record, uniform
from rheostat.errors import RheostatError
from rheostat.policies.control.distributions import Categorical, Gaussian
from rheostat.streams import Streams
from rheostat.tasks.control import probes
from rheostat.tasks.control.environments import make
from rheostat.training.run import Run
from tests.tiny_control import random_data, small

GAMMA = 0.9
QUICK = FQEConfig(steps=1500, batch_size=32, learning_rate=1e-2, target_every=20, hidden=(16,), gamma=GAMMA)


def by_chance(task: str, steps: int = 600) -> OfflineData:
    worlds = make(task, num_envs=4, seed=0)
    return record(uniform(worlds.action_space), worlds, steps, generator=Streams(0)["data"], facts={})


def leaning(right: float) -> Any:
    """A policy of two actions that takes the second with this probability."""
    logits = torch.tensor([1 - right, right]).log()
    return lambda observation: Categorical(logits.expand(len(observation), 2))


def test_every_estimator_finds_the_value_of_a_policy_that_did_not_collect() -> None:
    """RewardFromAction pays 1 for the second action and -1 for the first; chance earns 0, this policy 0.6."""
    data = by_chance(probes.task_id("RewardFromAction"))
    rows = {row.estimator: row for row in evaluate_offline(leaning(0.8), data, config=QUICK, sampled=True)}
    assert abs(rows["data"].value) < 0.2 and rows["data"].effective_episodes is None
    for name in ("is", "wis", "pdis", "wpdis", "dr", "wdr"):
        assert rows[name].value == pytest.approx(0.6, abs=0.15), name
        assert 1 < (rows[name].effective_episodes or 0) < 600
    assert rows["fqe"].value == pytest.approx(0.6, abs=0.3)  # a mean over four sampled actions per state


def test_the_deterministic_policy_earns_what_its_best_action_earns() -> None:
    data = by_chance(probes.task_id("RewardFromAction", True))
    (row,) = evaluate_offline(lambda x: Gaussian(torch.full((len(x), 1), 0.5), torch.zeros(1)), data, ("fqe",), config=QUICK)
    assert row.value == pytest.approx(1.0, abs=0.1)


def test_rewards_to_come_are_discounted() -> None:
    data = by_chance(probes.task_id("DelayedReward"))
    (row,) = evaluate_offline(leaning(0.5), data, ("fqe",), config=QUICK)
    assert row.value == pytest.approx(GAMMA, abs=0.1)


def test_time_limits_are_bootstrapped_through() -> None:
    data = by_chance(probes.task_id("TimeLimit"))
    rows = evaluate_offline(leaning(0.5), data, ("data", "fqe"), config=QUICK)
    assert rows[0].value == pytest.approx(sum(GAMMA**t for t in range(5)), abs=0.05)
    assert rows[1].value == pytest.approx(10, abs=0.1)  # 1 / (1 - gamma)
    (limited,) = evaluate_offline(leaning(0.5), data, ("fqe",), config=replace(QUICK, horizon=5))
    assert limited.value == pytest.approx(rows[0].value, abs=0.05) and limited.horizon == "5 steps"


def test_refusals() -> None:
    data = by_chance(probes.task_id("RewardFromAction"), 40)
    with pytest.raises(RheostatError, match="fqee"):
        evaluate_offline(leaning(0.5), data, ("fqee",))
    unknown = by_chance(probes.task_id("RewardFromAction"), 40)
    unknown.transitions.sampler_logp = torch.full((40,), float("nan"))
    with pytest.raises(RheostatError, match="does not say how likely its actions were"):
        evaluate_offline(leaning(0.5), unknown, ("wis",))

    class NoDensity(Categorical):
        def log_prob(self, action: Tensor) -> Tensor:
            return torch.full((len(action),), float("nan"))

    with pytest.raises(RheostatError, match="deterministic and has no density"):
        evaluate_offline(lambda x: NoDensity(torch.zeros(len(x), 2)), data, ("is",))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Run.create(tmp_path / "run", small("td3", steps=60, start_steps=20)).train()
    words = ["ope", str(tmp_path / "run"), "--offline", random_data("Pendulum-v1", 450), "--steps", "20", "--hidden", "8"]
    main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)["estimates"]
    assert [row["estimator"] for row in found] == ["data", "fqe"]
    with pytest.raises(SystemExit):
        main([*words, "--estimators", "wis"])
    assert "does not say how likely" in capsys.readouterr().err
