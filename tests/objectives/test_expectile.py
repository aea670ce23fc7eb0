"""Expectile regression: where its minimum lies, and the laws of all losses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.expectile import expectile_loss
from rheostat.objectives.value import value_loss

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    value, target = torch.randn(2, rows, generator=generator, dtype=torch.float64)
    weight = torch.rand(rows, generator=generator, dtype=torch.float64) * (torch.rand(rows, generator=generator) < 0.7)
    return value, target, weight


def minimiser(target: Tensor, expectile: float) -> float:
    """The value v at which the loss is flat, by bisection."""
    low, high = target.min(), target.max()
    for _ in range(40):
        v = ((low + high) / 2).requires_grad_()
        gradient = torch.autograd.grad(expectile_loss(v.expand_as(target), target, expectile), v)[0]
        low, high = (v.detach(), high) if gradient < 0 else (low, v.detach())
    return low.item()


def test_closed_form() -> None:
    value, target = torch.tensor([0.0, 0.0]), torch.tensor([2.0, -1.0])
    assert expectile_loss(value, target, 0.7).item() == pytest.approx((0.7 * 4 + 0.3 * 1) / 2)  # targets above the value count more
    assert expectile_loss(value, target, 0.7, scale=2.0).item() == pytest.approx(0.7 * 4 + 0.3 * 1)


@given(seed=seeds)
def test_half_is_half_the_squared_error(seed: int) -> None:
    value, target, _ = draw(seed)
    torch.testing.assert_close(expectile_loss(value, target, 0.5), value_loss(value, target))


@pytest.mark.parametrize("seed", range(3))
def test_the_solution_moves_from_the_mean_to_the_largest_target(seed: int) -> None:
    _, target, _ = draw(seed)
    assert minimiser(target, 0.5) == pytest.approx(target.mean().item(), abs=1e-9)
    solutions = [minimiser(target, expectile) for expectile in (0.5, 0.7, 0.9, 0.999)]
    assert solutions == sorted(solutions)
    assert target.max().item() - solutions[-1] < 0.02 * (target.max() - target.min()).item()


def test_the_minimum_satisfies_its_definition() -> None:
    _, target, _ = draw(3)
    v = minimiser(target, 0.8)
    above, below = (target - v).clamp(min=0).sum().item(), (v - target).clamp(min=0).sum().item()
    assert 0.8 * above == pytest.approx(0.2 * below)


@given(seed=seeds, expectile=st.sampled_from([0.1, 0.7, 0.9]), cut=st.integers(1, 5))
def test_laws(seed: int, expectile: float, cut: int) -> None:
    value, target, weight = draw(seed)

    def loss(rows: Tensor | slice, poison: float | None = None) -> Tensor:
        v, y = (x if poison is None else x.masked_fill(weight == 0, poison) for x in (value, target))
        return expectile_loss(v[rows], y[rows], expectile, weight=weight[rows], denominator=6, scale=2.0)

    whole = loss(slice(None))
    torch.testing.assert_close(loss(slice(0, cut)) + loss(slice(cut, None)), whole)
    torch.testing.assert_close(loss(torch.randperm(6, generator=torch.Generator().manual_seed(seed))), whole)
    torch.testing.assert_close(loss(slice(None), math.nan), whole)
    v = value.masked_fill(weight == 0, math.nan).requires_grad_()
    grad = torch.autograd.grad(expectile_loss(v, target, expectile, weight=weight), v)[0]
    assert grad.isfinite().all() and (grad[weight == 0] == 0).all()
    assert torch.autograd.gradcheck(lambda x: expectile_loss(x, target, expectile, weight=weight), (value.clone().requires_grad_(),))


def test_the_target_is_a_constant_and_mistakes_are_refused() -> None:
    value, target = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    assert torch.autograd.grad(expectile_loss(value, target, 0.7), [value, target], allow_unused=True)[1] is None
    with pytest.raises(RheostatError, match=r"target \[3, 1\]"):
        expectile_loss(value, target.unsqueeze(-1), 0.7)
    with pytest.raises(RheostatError, match=r"weight \[1\]"):
        expectile_loss(value, target, 0.7, weight=torch.ones(1))
    for expectile in (0.0, 1.0, 1.7):
        with pytest.raises(RheostatError, match="between 0 and 1"):
            expectile_loss(value, target, expectile)
