"""The behaviour policy's losses: what they push down, where they stop, and that ROS and PROPS agree at the target policy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.behaviour import advantage_weight, behaviour_loss, ros_loss, ros_tabular_step
from rheostat.objectives.kl import categorical_kl
from rheostat.objectives.sampling_error import sampling_error_tabular, visit_counts

seeds = st.integers(0, 2**32 - 1)


def buffer(seed: int, rows: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    states = torch.randint(3, (rows,), generator=generator)
    return theta, states, torch.multinomial(theta.softmax(-1)[states], 1, generator=generator).squeeze(-1)


def logp(logits: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    return logits.log_softmax(-1)[states, actions]


def test_closed_form_and_stop_rule() -> None:
    new = torch.tensor([math.log(0.5), 0.0, math.log(2.0)], requires_grad=True)
    step = behaviour_loss(new, torch.zeros(3), torch.tensor([[0.1, 0.3], [0.0, 0.0], [0.2, 0.0]]), clip=0.3, kl_coef=2.0)
    assert step.clip_loss.item() == pytest.approx((0.7 + 1.0 + 2.0) / 3)
    assert step.kl is not None and step.kl.item() == pytest.approx(0.1)
    assert step.loss.item() == pytest.approx(step.clip_loss.item() + 0.2)
    grad = torch.autograd.grad(step.loss, new)[0]
    assert grad.tolist() == pytest.approx([0.0, 1 / 3, 2 / 3])  # pushed down far enough; at the target; pushed up
    assert step.clip_fraction.item() == pytest.approx(1 / 3) and step.outside_fraction.item() == pytest.approx(2 / 3)
    k3 = (0.5 - 1 - math.log(0.5) + 2.0 - 1 - math.log(2.0)) / 3
    assert step.approx_kl.item() == pytest.approx(k3)
    assert step.exceeds(k3 * 0.99) and not step.exceeds(k3 * 1.01)


@given(seed=seeds)
def test_at_the_target_policy_the_losses_and_the_tabular_step_agree(seed: int) -> None:
    theta, states, actions = buffer(seed)
    phi = theta.clone().requires_grad_()
    target = logp(theta, states, actions)
    kl = categorical_kl(theta, phi)[states]
    props = torch.autograd.grad(behaviour_loss(logp(phi, states, actions), target, kl, clip=0.3, kl_coef=0.1).loss, phi)[0]
    ros = torch.autograd.grad(ros_loss(logp(phi, states, actions), target), phi)[0]
    moved, gradient = ros_tabular_step(theta, states, actions, lr=0.7)
    torch.testing.assert_close(props, gradient)
    torch.testing.assert_close(ros, gradient)
    torch.testing.assert_close(moved, theta - 0.7 * gradient)


@given(seed=seeds)
def test_ros_has_the_right_sign(seed: int) -> None:
    """Sampled actions become less likely, under-sampled ones more likely; the first release did the opposite."""
    theta, states, actions = buffer(seed)
    moved, _ = ros_tabular_step(theta, states, actions, lr=0.01)
    before = logp(theta, states, actions).mean()
    assert logp(moved, states, actions).mean() <= before
    counts = visit_counts(states, actions, shape=(3, 4))
    surplus = counts.double() - counts.sum(-1, keepdim=True) * theta.softmax(-1)
    assert ((moved - theta) * surplus <= 1e-15).all()
    phi = theta.clone().requires_grad_()
    wrong = torch.autograd.grad(ros_loss(logp(phi, states, actions), logp(theta, states, actions), as_released=True), phi)[0]
    assert logp(theta - 0.01 * wrong, states, actions).mean() >= before


def test_sampling_with_ros_lowers_the_sampling_error() -> None:
    """One state, four actions: re-deriving the behaviour policy before every draw beats independent draws."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.tensor([[0.5, 0.0, -0.5, 1.0]], dtype=torch.float64)
    errors = {}
    for adaptive in (False, True):
        total = 0.0
        for _ in range(20):
            actions = torch.zeros(0, dtype=torch.int64)
            for _ in range(60):
                logits = ros_tabular_step(theta, torch.zeros_like(actions), actions, lr=100.0)[0] if adaptive and len(actions) else theta
                actions = torch.cat([actions, torch.multinomial(logits.softmax(-1)[0], 1, generator=generator)])
            total += sampling_error_tabular(theta.softmax(-1), visit_counts(torch.zeros_like(actions), actions, shape=(1, 4))).item()
        errors[adaptive] = total / 20
    assert errors[True] < 0.5 * errors[False]


def test_advantage_weight_is_not_centred() -> None:
    advantage = torch.tensor([1.0, 2.0, 3.0])
    assert advantage_weight(advantage).tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert advantage_weight(-advantage).tolist() == pytest.approx([1.0, 2.0, 3.0])


def test_without_a_kl_there_is_no_coefficient() -> None:
    step = behaviour_loss(torch.zeros(2), torch.zeros(2), clip=0.3, kl_coef=0.0)
    assert step.kl is None and step.loss.item() == 1.0
    with pytest.raises(RheostatError, match="kl_coef"):
        behaviour_loss(torch.zeros(2), torch.zeros(2), clip=0.3, kl_coef=0.1)


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match="one shape"):
        behaviour_loss(torch.zeros(2), torch.zeros(2, 1), clip=0.3, kl_coef=0.0)
    with pytest.raises(RheostatError, match="at least one"):
        ros_tabular_step(torch.zeros(2, 2), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), lr=1.0)
