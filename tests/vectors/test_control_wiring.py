"""Vectors of control are of methods: without a method's own parts, its cases fail."""

from __future__ import annotations

import pytest

from rheostat.methods import table
from tests.vectors.test_wiring import broken, outcomes

STEPS = {
    "a2c": ("baselines-control", "a2c_sb3"),
    "awac": ("baselines-control", "awac_actor"),
    "cql": ("baselines-control", "cql_critic"),
    "iql": ("baselines-control", "iql_step"),
    "pmoe": ("pmoe", "sac_update"),
    "pmoe-ppo": ("pmoe", "ppo_total_loss"),
    "ppo": ("baselines-control", "ppo_sb3"),
    "props": ("props", "target_ppo_minibatch"),
    "rlpd": ("baselines-control", "rlpd_losses"),
    "sac": ("baselines-control", "sac_sb3_step"),
    "td3-bc": ("baselines-control", "td3_bc_step"),
}
"""Of a method, the file that holds its gradient step, and how the cases begin."""
PARTS = {
    "rheostat.credit.td_annotations.SoftTarget.__call__": ("baselines-control", "sac_sb3_step"),
    "rheostat.learner.actor_critic_updates.CriticStep.step": ("baselines-control", "iql_step"),
    "rheostat.learner.actor_critic_updates.WeightedImitation.step": ("baselines-control", "awac_actor"),
    "rheostat.learner.actor_critic_updates.DeterministicActorStep.step": ("baselines-control", "td3_bc_step"),
    "rheostat.learner.conservative_critics.ConservativeCriticStep.step": ("baselines-control", "cql_critic"),
    "rheostat.learner.going_online.Online.update": ("uni-o4", "online_ppo_update"),
    "rheostat.learner.mixture.MixtureActorStep.step": ("pmoe", "sac_update"),
}
"""Parts that gradient steps are made of."""


@pytest.mark.parametrize("method", STEPS)
def test_a_step_is_the_methods_own(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcomes(*STEPS[method]) <= {"passed", "skipped"}
    monkeypatch.setattr(table.entry(method).load(), "compose", broken)
    assert outcomes(*STEPS[method]) <= {"failed", "skipped"} and "failed" in outcomes(*STEPS[method])


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_the_methods_own(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, broken)
    assert "passed" not in outcomes(*PARTS[part])
