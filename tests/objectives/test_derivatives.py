"""Derivatives by hand are those autograd finds for the kernel's losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.behaviour import behaviour_loss, ros_loss
from rheostat.objectives.clipping import Clip, ClipRule, DetachedClip, LogClip, NoClip, PolicyShaping
from rheostat.objectives.derivatives import behaviour_dloss_dlogp, policy_dloss_dlogp, ros_dloss_dlogp, value_dloss_dvalue
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.value import value_loss

LIMITS: list[ClipRule] = [
    NoClip(),
    Clip(),
    Clip(0.2, 0.28),
    Clip(0.2, 0.2, dual=1.5),
    Clip(0.2, 0.2, upper=1.6),
    Clip(torch.linspace(0.05, 0.3, 64, dtype=torch.float64), 0.2),
    Clip(0.1, 0.1, centre=1.2),
    DetachedClip(),
    DetachedClip(0.2, 0.3),
    LogClip(0.3, 0.2),
    PolicyShaping(),
]


def rows(seed: int, count: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, generator=generator, dtype=torch.float64) * 0.5 for _ in range(4)]


def by_autograd(loss: Tensor, x: Tensor) -> Tensor:
    (dloss_dlogp,) = torch.autograd.grad(loss, x)
    return dloss_dlogp


@pytest.mark.parametrize("clip", LIMITS, ids=repr)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_policy_derivative_is_the_gradient_of_the_policy_loss(clip: ClipRule, seed: int) -> None:
    logp, old, advantage, weight = rows(seed)
    advantage[:4] = 0.0
    logp.requires_grad_()
    loss = policy_gradient(logp, advantage, denominator_logp=old, clip=clip, weight=weight.exp()).loss
    dloss_dlogp = policy_dloss_dlogp(logp, advantage, denominator_logp=old, clip=clip, weight=weight.exp())
    assert not dloss_dlogp.requires_grad
    torch.testing.assert_close(dloss_dlogp, by_autograd(loss, logp))


@pytest.mark.parametrize("clip", [NoClip(), Clip(), DetachedClip()], ids=repr)
def test_policy_derivative_without_a_denominator(clip: ClipRule) -> None:
    logp, _, advantage, _ = rows(0)
    logp.requires_grad_()
    loss = policy_gradient(logp, advantage, denominator_logp=None, clip=clip).loss
    torch.testing.assert_close(policy_dloss_dlogp(logp, advantage, denominator_logp=None, clip=clip), by_autograd(loss, logp))


def test_a_ratio_on_the_bound_keeps_its_gradient() -> None:
    ratio, advantage = torch.tensor([1.25, 0.75, 1.25, 0.75]), torch.tensor([1.0, -1.0, -1.0, 1.0])
    dloss_dlogp = policy_dloss_dlogp(ratio.log(), advantage, denominator_logp=torch.zeros(4), clip=Clip(0.25, 0.25))
    torch.testing.assert_close(dloss_dlogp, -advantage * ratio / 4)


@given(seed=st.integers(0, 2**31), clip=st.sampled_from([None, 0.1, 0.5]), pessimistic=st.booleans(), scale=st.sampled_from([0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_value_slope_is_the_gradient_of_the_value_loss(seed: int, clip: float | None, pessimistic: bool, scale: float) -> None:
    value, target, old, _ = rows(seed)
    old[:4] = value[:4]
    target[4:8] = value[4:8]
    value.requires_grad_()
    options: dict[str, Any] = {"old_value": old, "clip": clip, "pessimistic": pessimistic, "scale": scale}
    loss = value_loss(value, target, **options)
    torch.testing.assert_close(value_dloss_dvalue(value.detach(), target, **options), by_autograd(loss, value))


def test_behaviour_and_ros_slopes_are_the_gradients_of_their_losses() -> None:
    logp, target_logp, _, weight = rows(3)
    weight = weight.abs()
    logp.requires_grad_()
    loss = behaviour_loss(logp, target_logp, clip=0.3, kl_coef=0.0, weight=weight).loss
    torch.testing.assert_close(behaviour_dloss_dlogp(logp.detach(), target_logp, clip=0.3, weight=weight), by_autograd(loss, logp))
    torch.testing.assert_close(ros_dloss_dlogp(logp.detach(), target_logp), by_autograd(ros_loss(logp, target_logp), logp))


def test_wrong_shapes_and_a_clip_without_old_values_are_refused() -> None:
    x = torch.zeros(3)
    with pytest.raises(RheostatError, match="one shape"):
        policy_dloss_dlogp(x, x[:, None], denominator_logp=x, clip=Clip())
    with pytest.raises(RheostatError, match="one shape"):
        value_dloss_dvalue(x, x[:, None])
    with pytest.raises(RheostatError, match="old_value"):
        value_dloss_dvalue(x, x, clip=0.2)
