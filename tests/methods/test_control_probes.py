"""Every control method of the table on every probe environment: the right values and actions are known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rheostat.learner.off_policy import AsRead
from rheostat.parts import Batch
from rheostat.tasks.control import probes
from tests.probing import GAMMA, GRADIENT_STEPS, STEPS, can_fail, mistakes, places, train_on, train_replay_on
from tests.tiny_control import CONTROL, ZERO_SHOT, discrete

QUICK = ("a2c", "bc", "dqn", "iql", "props", "ros", "sac", "td3")
"""Methods that are tried once in every run of the tests."""


def is_quick(method: str, probe: str, continuous: bool) -> bool:
    """All continuous probes of PPO and one of a few other methods; the rest runs every night."""
    if method == "ppo":
        return continuous
    return method in QUICK and (probe, continuous) == ("RewardFromBoth", not discrete(method))


def cases() -> list[object]:
    """Every method on every probe that it can act in."""
    found = []
    for method in sorted(set(CONTROL) - ZERO_SHOT):
        for probe, continuous in places():
            if can_fail(method, probe, continuous):
                name = f"{method}-{'continuous' if continuous else 'discrete'}-{probe}"
                marks = () if is_quick(method, probe, continuous) else pytest.mark.slow
                found.append(pytest.param(method, probe, continuous, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("method", "probe", "continuous"), cases())
def test_probe(method: str, probe: str, continuous: bool, tmp_path: Path) -> None:
    wrong = mistakes(method, probe, continuous, tmp_path / "run")
    assert not wrong, wrong


def test_the_time_limit_probe_catches_the_wrong_rule(tmp_path: Path) -> None:
    """A method that takes time limits for deaths must fail the probe, and be told so."""
    run = train_on("ppo", probes.task_id("TimeLimit"), STEPS["TimeLimit"], tmp_path / "run", bootstrap_on_truncation=False)
    wrong = probes.check("TimeLimit", gamma=GAMMA, value=run.method.policy.value)
    assert wrong and "bootstrapping at time limits" in wrong[0]


@pytest.mark.slow
def test_the_time_limit_probe_catches_the_wrong_rule_in_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a method that learns from single transitions."""
    right = AsRead.__call__

    def wrong(self: AsRead, context: Any, batch: Batch) -> Batch:
        seen = right(self, context, batch)
        seen.rows.discount = seen.rows.discount.masked_fill(seen.rows.truncated, 0.0)
        return seen

    monkeypatch.setattr(AsRead, "__call__", wrong)
    run = train_replay_on("dqn", probes.task_id("TimeLimit"), GRADIENT_STEPS["TimeLimit"], tmp_path / "run")
    found = probes.check("TimeLimit", gamma=GAMMA, value=run.method.context.value)
    assert found and "bootstrapping at time limits" in found[0]
