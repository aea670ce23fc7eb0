"""PROPS, ROS and Robust Acting: who acts, in which order, and towards what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rheostat.api import settings_for
from rheostat.errors import RheostatError
from rheostat.learner.behaviour_updates import RosUpdate, rows_to_repair
from rheostat.training.building import build_method
from tests.by_hand import part_of

SMALL = {"num_envs": 4, "batch_steps": 64, "epochs": 2, "minibatches": 2, "hidden": (8,), "window": 2}


def build(method: str, task: str = "CartPole-v1", **options: Any) -> Any:
    settings = settings_for(method, task, steps=10_000, **(SMALL | options))
    return build_method(settings, settings.task)


def test_the_behaviour_policy_restarts_from_the_new_target() -> None:
    """After a turn in which the target moved, phi without its own steps equals theta: the ratio starts at exactly 1."""
    method = build("props", behaviour_steps=16, behaviour_target_kl=-1.0)  # the k3 estimate is never below 0: no behaviour step passes
    policy, behaviour = (method.context.models[name].parameters for name in ("policy", "behaviour"))
    before = policy.vector.detach().clone()
    for _ in range(4):
        metrics = method.turn()
    assert method.updates == 1 and not torch.equal(before, policy.vector)
    assert metrics["behaviour_gradient_steps"] == 0
    assert torch.equal(behaviour.vector, policy.vector)


def test_the_target_moves_once_per_batch_and_phi_every_block() -> None:
    method = build("props", behaviour_steps=16)
    updates = []
    for _ in range(8):
        metrics = method.turn()
        updates.append(method.updates)
        assert "behaviour_kl" in metrics
    assert updates == [0, 0, 0, 1, 1, 1, 1, 2]


def test_the_oldest_block_is_left_out_once_the_window_is_full() -> None:
    method = build("props", behaviour_steps=16)
    capacity = 2 * 64 // 16
    for turn in range(capacity + 1):
        kept = method.retain(method.collect())
        rows = rows_to_repair(kept, method.composition.collect.vector_steps)
        expected = kept.rows.mask[:, 4 if turn >= capacity - 1 else 0 :].sum()
        assert len(rows) == int(expected)


@pytest.mark.parametrize("method_name", ["props", "ros"])
@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_what_is_in_the_window_becomes_less_likely(method_name: str, task: str) -> None:
    options = {"behaviour_target_kl": 1.0, "behaviour_kl_coefficient": 0.0} if method_name == "props" else {"behaviour_learning_rate": 0.01}
    method = build(method_name, task, behaviour_steps=32, **options)
    kept = method.retain(method.collect())
    context, rows = method.context, kept.rows.transitions()
    observation = context.see(rows.observation)
    context.models["behaviour"].restart_from(context.models["policy"].parameters)
    part_of(method, RosUpdate).update_behaviour(context, rows)
    with torch.no_grad():
        target = method.policy.distribution(observation).log_prob(rows.action)
        behaviour = context.models["behaviour"].network.distribution(observation).log_prob(rows.action)
    assert (behaviour - target).mean() < 0


@pytest.mark.parametrize("name", ["ros", "props"])
def test_a_window_of_one_block_has_nothing_to_repair_and_is_refused(name: str) -> None:
    with pytest.raises(RheostatError, match=r"would do nothing: (behaviour_steps|it) is a whole batch and window is 1"):
        build(name, window=1, behaviour_steps=64)


def test_learning_from_the_window_uses_the_start_of_the_update_as_reference() -> None:
    """PPO's ratio is against theta at the start of this update, not against what generated the row."""
    method = build("props", behaviour_steps=32)
    for _ in range(3):
        batch = method.credit(method.retain(method.collect()))
        method.improve(batch)
    batch = method.credit(method.retain(method.collect())).rows
    with torch.no_grad():
        seen = method.context.see(batch.observation).flatten(0, 1)
        now = method.context.models["policy"].distribution(seen).log_prob(batch.action.flatten(0, 1))
    assert torch.equal(batch.learner_logp.flatten(), now)
    assert not torch.allclose(batch.learner_logp[batch.mask], batch.sampler_logp[batch.mask])


def test_advantage_weighting_needs_advantages_in_every_turn() -> None:
    method = build("props", behaviour_steps=32, advantage_weighted=True)
    for _ in range(3):
        assert "behaviour_kl" in method.turn()


def test_behaviour_steps_must_divide_the_batch() -> None:
    with pytest.raises(RheostatError, match="must divide batch_steps"):
        settings_for("props", "CartPole-v1", behaviour_steps=100)


def test_robust_acting_flattens_the_score() -> None:
    """Where two states come back again and again, choosing always makes the average score of the batch far smaller than sampling does."""
    task = "rheostat/Probe-RewardFromBoth-v0"

    def average_score(probability: float) -> float:
        from rheostat.collect.control.robust_actions import ScoreGradients

        method = build("robust-acting", task, repair_probability=probability, normalise_observations=False, num_envs=1, batch_steps=256)
        block = method.collect().rows.transitions()
        total = ScoreGradients(method.policy).total(method.context.see(block.observation), block.action)
        return float(total.abs().mean() / len(block))

    assert average_score(1.0) < 0.5 * average_score(0.0)


def test_robust_acting_knows_the_probability_of_what_it_did() -> None:
    discrete = build("robust-acting", repair_probability=0.5).collect().rows
    assert (discrete.sampler_logp[discrete.mask] <= 0).all() and not discrete.sampler_logp.isnan().any()
    continuous = build("robust-acting", "Pendulum-v1", repair_probability=0.5).collect().rows
    assert continuous.sampler_logp.isnan().all()
    with pytest.raises(RheostatError, match="at least 0 and at most 1"):
        settings_for("robust-acting", "CartPole-v1", repair_probability=1.5)
