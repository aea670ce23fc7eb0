"""Actor and temperature losses: closed forms, where gradients stop, and the laws of all losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.actor import (
    behaviour_regularised_loss,
    deterministic_actor_loss,
    smoothed_action,
    soft_actor_loss,
    temperature_loss,
)

seeds = st.integers(0, 2**32 - 1)
LOG_ALPHA = torch.tensor(math.log(0.2), dtype=torch.float64)

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Of values ``[B]``, log-probs ``[B]``, actions ``[B, d]`` and weights ``[B]``, divided by the number of rows of the whole batch."""
SUMS: dict[str, Loss] = {
    "soft": lambda q, logp, a, w: soft_actor_loss(q, logp, 0.3, weight=w, denominator=6),
    "deterministic": lambda q, logp, a, w: deterministic_actor_loss(q, weight=w, denominator=6),
    "temperature": lambda q, logp, a, w: temperature_loss(LOG_ALPHA, logp, -2.0, weight=w, denominator=6),
}
LOSSES: dict[str, Loss] = SUMS | {"behaviour": lambda q, logp, a, w: behaviour_regularised_loss(q, a, torch.zeros_like(a), weight=w)}


def draw(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    value, logp = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    action = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    weight = torch.rand(6, generator=generator, dtype=torch.float64) * (torch.rand(6, generator=generator) < 0.7)
    weight[0] = 1.0
    return value, logp, action, weight


def test_closed_forms() -> None:
    value, logp = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 2.0])
    assert soft_actor_loss(value, logp, 0.5).item() == pytest.approx((-0.5 - 1 + 1 - 3) / 2)
    assert deterministic_actor_loss(value).item() == -2.0
    excess = (-1 + 2) / 2 - 3.0  # mean log-prob and a target entropy of -3
    assert temperature_loss(torch.tensor(0.5), logp, -3.0).item() == pytest.approx(-math.exp(0.5) * excess)
    assert temperature_loss(torch.tensor([0.5]), logp, -3.0, form="log").item() == pytest.approx(-0.5 * excess)


def test_behaviour_regularisation_in_both_reductions() -> None:
    value, action, data = torch.tensor([1.0, -3.0]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    critic = 2.5 / 2 * (1 - 3) / 2  # lambda is 2.5 / mean|Q|
    mean = (1 + 1 + 0 + 4) / 4
    assert behaviour_regularised_loss(value, action, data).item() == pytest.approx(mean - critic)
    summed = behaviour_regularised_loss(value, action, data, dimensions="sum", alpha=1.0, imitation=0.1)
    assert summed.item() == pytest.approx(0.1 * 2 * mean - critic / 2.5)


@given(seed=seeds)
def test_the_scale_of_the_critic_cancels(seed: int) -> None:
    value, _, action, _ = draw(seed)
    actions = [action.clone().requires_grad_() for _ in range(2)]
    for x, scale in zip(actions, (1.0, 1e3), strict=True):
        behaviour_regularised_loss(scale * (value + x.sum(-1).sin()), x, torch.zeros_like(x)).backward()
    torch.testing.assert_close(actions[0].grad, actions[1].grad)


@pytest.mark.parametrize(("form", "factor"), [("exp", 0.2), ("log", 1.0)])
def test_the_temperature_grows_while_the_entropy_is_below_its_target(form: Any, factor: float) -> None:
    log_alpha = torch.tensor([math.log(0.2)], requires_grad=True)
    for entropy, target in ((-3.0, -2.0), (-1.0, -2.0)):
        loss = temperature_loss(log_alpha, torch.full((4,), -entropy), target, form=form)
        assert torch.autograd.grad(loss, log_alpha)[0].item() == pytest.approx(factor * (entropy - target))  # descent adds minus this


def test_gradients_stop_where_they_must() -> None:
    value, logp, log_alpha = (torch.ones(n, requires_grad=True) for n in (3, 3, 1))
    action, data = torch.zeros(3, 2, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    weight = torch.ones(3, requires_grad=True)
    grads = torch.autograd.grad(soft_actor_loss(value, logp, log_alpha, weight=weight), [value, logp, log_alpha, weight], allow_unused=True)
    torch.testing.assert_close(grads[0], torch.full((3,), -1 / 3))
    torch.testing.assert_close(grads[1], torch.full((3,), 1 / 3))
    assert grads[2:] == (None, None)
    loss = behaviour_regularised_loss(value, action, data, weight=weight)
    grads = torch.autograd.grad(loss, [value, action, data, weight], allow_unused=True)
    torch.testing.assert_close(grads[0], torch.full((3,), -2.5 / 3))  # nothing through mean|Q|
    assert grads[1] is not None and grads[2:] == (None, None)
    assert torch.autograd.grad(temperature_loss(log_alpha, logp, -2.0), [log_alpha, logp], allow_unused=True)[1] is None
    assert not smoothed_action(action, data).requires_grad


@given(seed=seeds, name=st.sampled_from(sorted(SUMS)), cut=st.integers(1, 5))
def test_a_batch_is_the_sum_of_its_parts(seed: int, name: str, cut: int) -> None:
    batch = draw(seed)
    first, second, whole = (SUMS[name](*(x[rows] for x in batch)) for rows in (slice(0, cut), slice(cut, None), slice(None)))
    torch.testing.assert_close(first + second, whole)


@given(seed=seeds, name=st.sampled_from(sorted(LOSSES)))
def test_row_order_and_rows_of_weight_zero_change_nothing(seed: int, name: str) -> None:
    batch = draw(seed)
    value, logp, action, weight = batch
    loss, kept = LOSSES[name], weight != 0
    whole = loss(*batch)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(loss(*(x[order] for x in batch)), whole)
    if name == "behaviour":  # divides by its own rows, so that weights of mean 1 are compared
        normal = loss(value, logp, action, weight / weight.mean())
        torch.testing.assert_close(loss(value[kept], logp[kept], action[kept], weight[kept] / weight[kept].mean()), normal)
    else:
        torch.testing.assert_close(loss(*(x[kept] for x in batch)), whole)
    poisoned = [x.masked_fill(~(kept if x.ndim == 1 else kept.unsqueeze(-1)), math.nan).requires_grad_() for x in (value, logp, action)]
    torch.testing.assert_close(loss(*poisoned, weight), whole)
    if name != "temperature":  # nothing of it reaches the policy
        for grad in torch.autograd.grad(loss(*poisoned, weight), poisoned, allow_unused=True):
            assert grad is None or grad.isfinite().all()
            assert grad is None or (grad[~kept] == 0).all()


def test_noise_is_limited_before_the_action_is() -> None:
    action, noise = torch.tensor([[0.9, 0.0], [-0.2, 1.0]]), torch.tensor([[1.0, 9.0], [-1.0, -9.0]])
    torch.testing.assert_close(smoothed_action(action, noise), torch.tensor([[1.0, 0.5], [-0.4, 0.5]]))
    bounds = torch.tensor([2.0, 1.0])
    scaled = smoothed_action(action, noise, scale=0.2 * bounds, clip=0.5 * bounds, low=-bounds, high=bounds)
    torch.testing.assert_close(scaled, torch.tensor([[1.3, 0.5], [-0.6, 0.5]]))


ones = torch.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: soft_actor_loss(ones, ones.unsqueeze(-1), 0.1), r"log_prob \[3, 1\]"),
        (lambda: soft_actor_loss(ones, ones, ones), "temperature is one number"),
        (lambda: soft_actor_loss(ones, ones, 0.1, weight=ones.unsqueeze(-1)), r"weight \[3, 1\]"),
        (lambda: deterministic_actor_loss(ones, weight=ones[:1]), r"weight \[1\]"),
        (lambda: behaviour_regularised_loss(ones.unsqueeze(-1), torch.ones(3, 2), torch.ones(3, 2)), r"value \[3, 1\]"),
        (lambda: behaviour_regularised_loss(ones, torch.ones(3, 2), torch.ones(3, 1)), r"data_action \[3, 1\]"),
        (lambda: behaviour_regularised_loss(ones, torch.ones(3, 2), torch.ones(3, 2), dimensions="max"), "reduction over the action's"),  # type: ignore[arg-type]
        (lambda: temperature_loss(ones, ones, -1.0), "log_alpha is one number"),
        (lambda: temperature_loss(ones[:1], ones, -1.0, form="alpha"), "form of the temperature loss 'alpha'"),  # type: ignore[arg-type]
        (lambda: smoothed_action(torch.ones(3, 2), torch.ones(3, 1)), r"noise \[3, 1\]"),
    ],
)
def test_mistakes_are_refused(call: Any, message: str) -> None:
    with pytest.raises(RheostatError, match=message):
        call()
