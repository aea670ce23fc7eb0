"""Behaviour cloning: what is imitated, and how well."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rheostat.buffers.offline import OfflineData
from rheostat.errors import RheostatError
from rheostat.learner.control import build
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.settings import configure
from tests.by_hand import ByHand
from tests.tiny_control import built, gather, one_batch

TINY = {"batch_size": 32, "hidden": (16,), "learning_rate": 3e-3}


def cloned(data: OfflineData, task: str, steps: int, **options: Any) -> ByHand:
    """A policy that has learned from data made here."""
    config = configure("bc", TINY | options)
    method = ByHand(build(config, "bc", lambda rows, seed: make(task, num_envs=rows, seed=seed), Streams(0), steps, offline=data))
    while method.steps < steps:
        method.turn()
    return method


def pendulum(steps: int = 400) -> tuple[OfflineData, torch.Tensor]:
    """Pendulum's states, and the torque that somebody applied there: the sine of the angle."""
    data = gather("Pendulum-v1", steps)
    data.transitions.action = data.transitions.observation[:, 1:2].clone()
    return data, data.transitions.action


@pytest.mark.parametrize("imitation", ["deterministic", "stochastic"])
def test_a_teacher_of_continuous_actions_is_found_again(imitation: str) -> None:
    data, taught = pendulum()
    method = cloned(data, "Pendulum-v1", 600, imitation=imitation)
    with torch.no_grad():
        found = method.act_on_target(data.transitions.observation).mode()
    assert (found - taught).square().mean() < 0.05 * taught.var()  # in the world's units, torques up to 2
    method.close()


def test_the_likelihood_also_learns_how_uncertain_the_teacher_was() -> None:
    data, taught = pendulum()
    noise = torch.randn(taught.shape, generator=torch.Generator().manual_seed(0))
    data.transitions.action = (taught + 0.4 * noise).clamp(-2, 2)
    method = cloned(data, "Pendulum-v1", 1_000, imitation="stochastic", learning_rate=1e-2)
    assert method.policy.log_std.exp().item() == pytest.approx(0.2, rel=0.25)  # of unit actions
    method.close()


def test_a_teacher_of_choices_is_found_again() -> None:
    data = gather("CartPole-v1", 400)
    data.transitions.action = (data.transitions.observation[:, 3] > 0).long()
    method = cloned(data, "CartPole-v1", 600)
    with torch.no_grad():
        found = method.act_on_target(data.transitions.observation).mode()
    assert (found == data.transitions.action).double().mean() > 0.95
    method.close()


def test_the_three_losses_are_what_they_are_called() -> None:
    for options, task in (({}, "Pendulum-v1"), ({"imitation": "stochastic"}, "Pendulum-v1"), ({}, "CartPole-v1")):
        method = built("bc", task, **options)
        rows = one_batch(method)
        policy = method.distribution(rows.observation)
        if task == "CartPole-v1":
            expected = torch.nn.functional.cross_entropy(policy.logits, rows.action)
        elif options:
            normal = torch.distributions.Normal(policy.mean, policy.log_std.exp())
            expected = -normal.log_prob(rows.action).sum(-1).mean()
        else:
            expected = torch.nn.functional.mse_loss(policy.action, rows.action)
        torch.testing.assert_close(method.gradient_step(rows)["policy_loss"], expected.detach())
        method.close()


def test_only_the_best_episodes_are_kept_and_give_the_statistics() -> None:
    data = gather("CartPole-v1", 300)
    method = cloned(data, "CartPole-v1", 1, best_share=0.25, normalise_states=True)
    returns = data.returns
    count = round(0.25 * len(returns))
    assert 1 < count < len(returns)
    kept = method.offline
    assert kept is not None and sorted(kept.returns.tolist()) == sorted(returns.tolist())[-count:]
    assert len(method.replay) == len(kept) < len(data)
    torch.testing.assert_close(method.context.stores["observations"].shift, kept.transitions.observation.mean(0))
    method.close()


def test_the_smallest_share_keeps_one_episode_and_all_of_them_keep_everything() -> None:
    data = gather("CartPole-v1", 300)
    best = data.best(1e-9)
    assert len(best.episodes) == 1 and best.returns.item() == data.returns.max()
    assert torch.equal(data.best(1.0).transitions.observation, data.transitions.observation)
    with pytest.raises(RheostatError, match="A share of the episodes lies above 0"):
        data.best(0.0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"best_share": 0.0}, r"best_share is 0\.0; it must be above 0 and at most 1"),
        ({"best_share": 1.1}, "best_share is"),
        ({"priority": 0.5}, "bc has no option priority"),
        ({"gamma": 0.9}, "bc has no option gamma"),
        ({"tau": 0.1}, "bc has no option tau"),
        ({"n_step": 3}, "bc has no option n_step"),
        ({"reward_scale": 2.0}, "bc has no option reward_scale"),
        ({"reward_shift": 1.0}, "bc has no option reward_shift"),
        ({"online_steps": 10}, "would only imitate itself in online_steps"),
        ({"imitation": "exact"}, "must be one of deterministic, stochastic"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        built("bc", **options)


def test_there_are_no_values() -> None:
    method = built("bc")
    with pytest.raises(RheostatError, match="bc has no critic"):
        method.value(torch.zeros(1, 3))
    method.close()
