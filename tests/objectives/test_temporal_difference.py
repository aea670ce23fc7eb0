"""Targets and critic losses: closed forms, the laws of all losses, and shapes that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.temporal_difference import absolute_td_error, critic_loss, greedy_value, min_over_critics, soft_value, td_target

q = torch.tensor([[1.0, 3.0], [2.0, -1.0]])  # two critics of two rows
target = torch.tensor([0.0, 1.0])
forms = st.fixed_dictionaries(
    {"critics": st.sampled_from(["sum", "mean"]), "scale": st.sampled_from([0.5, 1.0]), "huber": st.sampled_from([None, 0.7])}
)
seeds = st.integers(0, 2**32 - 1)


def test_closed_forms() -> None:
    squares = 1 + 4 + 4 + 4
    assert critic_loss(q, target).item() == pytest.approx(squares / 2)
    assert critic_loss(q, target, scale=0.5).item() == pytest.approx(squares / 4)
    assert critic_loss(q, target, critics="mean").item() == pytest.approx(squares / 4)
    assert critic_loss(q, target, huber=1.0).item() == pytest.approx((0.5 + 1.5 + 1.5 + 1.5) / 2)
    assert critic_loss(q, target, huber=10.0).item() == pytest.approx(squares / 4)  # inside delta: half the square
    assert critic_loss(q, target, weight=torch.tensor([1.0, 0.25])).item() == pytest.approx((5 + 0.25 * 8) / 2)
    assert absolute_td_error(q, target).tolist() == [1.5, 2.0]
    assert absolute_td_error(q, target, critics="max").tolist() == [2.0, 2.0]


def test_the_target_bootstraps_where_the_discount_is_not_zero() -> None:
    reward, discount = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.9, 0.9**3, 0.0])
    y = td_target(reward, torch.tensor([10.0, 10.0, math.nan]), discount)  # a terminated row may hold anything
    torch.testing.assert_close(y, torch.tensor([10.0, 1 + 10 * 0.9**3, 1.0]))


def test_least_of_all_and_of_a_subset() -> None:
    assert min_over_critics(q).tolist() == [1.0, -1.0] and min_over_critics(q, subset=[0]).tolist() == [1.0, 3.0]
    assert min_over_critics(torch.cat([q, q - 1]), subset=torch.tensor([2, 1])).tolist() == [0.0, -1.0]
    assert soft_value(torch.tensor([1.0]), torch.tensor([-2.0]), torch.tensor([0.5])).tolist() == [2.0]


def test_the_gradient_goes_to_the_smaller_critic_and_ties_share_it() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 2.0]], requires_grad=True)
    assert torch.autograd.grad(min_over_critics(values).sum(), values)[0].tolist() == [[1.0, 0.5], [0.0, 0.5]]


@given(seed=seeds, form=forms, cut=st.integers(1, 5))
def test_laws(seed: int, form: dict[str, Any], cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values, y = torch.randn(3, 6, generator=generator, dtype=torch.float64), torch.randn(6, generator=generator, dtype=torch.float64)
    weight = torch.rand(6, generator=generator, dtype=torch.float64) * (torch.rand(6, generator=generator) < 0.7)

    def loss(rows: Any, values: Tensor = values, y: Tensor = y) -> Tensor:
        return critic_loss(values[:, rows], y[rows], weight=weight[rows], denominator=6, **form)

    whole = loss(slice(None))
    torch.testing.assert_close(loss(slice(0, cut)) + loss(slice(cut, None)), whole)
    torch.testing.assert_close(loss(torch.randperm(6, generator=generator)), whole)
    torch.testing.assert_close(loss(weight != 0), whole)
    poisoned = values.masked_fill(weight == 0, math.nan).requires_grad_()
    harmless = loss(slice(None), poisoned, y.masked_fill(weight == 0, math.nan))
    torch.testing.assert_close(harmless, whole)
    grad = torch.autograd.grad(harmless, poisoned)[0]
    assert grad.isfinite().all() and (grad[:, weight == 0] == 0).all()
    torch.testing.assert_close(critic_loss(values, y, weight=torch.ones_like(y), **form), critic_loss(values, y, **form))


@given(seed=seeds, form=forms)
def test_gradient_against_finite_differences(seed: int, form: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y, weight = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: critic_loss(x, y, weight=weight.abs(), **form), (values,))


def test_targets_weights_and_errors_are_constants() -> None:
    values, y, weight = torch.ones(2, 3, requires_grad=True), torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    grads = torch.autograd.grad(critic_loss(values, y, weight=weight), [values, y, weight], allow_unused=True)
    assert grads[0] is not None and grads[1:] == (None, None)
    assert not td_target(y, 2 * y, weight).requires_grad and not absolute_td_error(values, y).requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: critic_loss(q, target.unsqueeze(-1)), r"target \[2, 1\]"),
        (lambda: critic_loss(q.unsqueeze(-1), target.unsqueeze(-1)), r"\[critics, rows\], not \[2, 2, 1\]"),
        (lambda: critic_loss(q[0], target), r"\[critics, rows\], not \[2\]"),
        (lambda: critic_loss(q, target, weight=torch.ones(2, 1)), r"weight \[2, 1\]"),
        (lambda: critic_loss(q, target, weight=torch.ones(1)), r"weight \[1\]"),
        (lambda: critic_loss(q, target, critics="max"), "Unknown reduction over critics 'max'"),  # type: ignore[arg-type]
        (lambda: absolute_td_error(q, target, critics="sum"), "Unknown reduction over critics 'sum'"),  # type: ignore[arg-type]
        (lambda: absolute_td_error(q, target.unsqueeze(-1)), r"target \[2, 1\]"),
        (lambda: min_over_critics(target), r"\[critics, rows\], not \[2\]"),
        (lambda: td_target(target, target.unsqueeze(-1), target), r"next_value \[2, 1\]"),
        (lambda: td_target(target, target, torch.tensor(0.99)), r"discount \[\]"),
        (lambda: soft_value(target, target.unsqueeze(-1), 0.1), r"log_prob \[2, 1\]"),
        (lambda: soft_value(target, target, torch.ones(2)), "temperature is one number"),
    ],
)
def test_mistakes_are_refused(call: Any, message: str) -> None:
    with pytest.raises(RheostatError, match=message):
        call()


@given(seeds)
def test_double_q_learning_never_values_more_than_the_largest_value(seed: int) -> None:
    values, selector = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(seed))
    greedy, double = greedy_value(values), greedy_value(values, selector)
    assert greedy.tolist() == [max(row) for row in values.tolist()]
    assert double.tolist() == [row[other.index(max(other))] for row, other in zip(values.tolist(), selector.tolist(), strict=True)]
    assert (double <= greedy).all()
    torch.testing.assert_close(greedy_value(values, values), greedy)
    assert not greedy_value(values.requires_grad_()).requires_grad
    with pytest.raises(RheostatError):
        greedy_value(values, selector[:, :3])
