"""The conservative penalty: exact log-sum-exp on a finite set of actions, its gradient, the multiplier, and the laws of all losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.conservative import (
    conservative_gap,
    conservative_penalty,
    lagrange_multiplier,
    multiplier_loss,
    uniform_log_density,
)

seeds = st.integers(0, 2**32 - 1)
CRITICS, ROWS, ACTIONS = 2, 5, 8


def draw(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Q of the data, Q of all actions, probabilities of a policy over them, weights."""
    generator = torch.Generator().manual_seed(seed)
    q_all = torch.randn(CRITICS, ROWS, ACTIONS, generator=generator, dtype=torch.float64)
    chosen = torch.randint(ACTIONS, (ROWS,), generator=generator)
    policy = torch.randn(ROWS, ACTIONS, generator=generator, dtype=torch.float64).softmax(-1)
    weight = torch.rand(ROWS, generator=generator, dtype=torch.float64) * (torch.rand(ROWS, generator=generator) < 0.7)
    return q_all[:, torch.arange(ROWS), chosen], q_all, policy, weight


@given(seed=seeds, temperature=st.sampled_from([1.0, 0.5, 2.0]))
def test_importance_form_is_the_exact_log_sum_exp_where_every_action_is_drawn_once(seed: int, temperature: float) -> None:
    q_data, q_all, _, _ = draw(seed)
    uniform = torch.full((ROWS, ACTIONS), -math.log(ACTIONS), dtype=torch.float64)
    gap = conservative_gap(q_data, q_all, uniform, temperature=temperature)
    torch.testing.assert_close(gap, temperature * (q_all / temperature).logsumexp(-1) - q_data)
    torch.testing.assert_close(gap, conservative_gap(q_data, q_all, form="exact", temperature=temperature))


@pytest.mark.parametrize("seed", range(3))
def test_importance_form_is_unbiased_for_any_sampler(seed: int) -> None:
    """exp of the estimate, averaged over the sampler's own draws, is the exact sum; a mixture of two samplers as in the codes."""
    q_data, q_all, policy, _ = draw(seed)
    expectation = torch.zeros(CRITICS, ROWS, dtype=torch.float64)
    for first in range(ACTIONS):
        for second in range(ACTIONS):
            density = torch.stack([torch.full((ROWS,), -math.log(ACTIONS), dtype=torch.float64), policy[:, second].log()], -1)
            gap = conservative_gap(q_data, q_all[..., [first, second]], density)
            expectation += density.sum(-1).exp() * (gap + q_data).exp()
    torch.testing.assert_close(expectation, q_all.exp().sum(-1))


@given(seed=seeds)
def test_forms_against_loops(seed: int) -> None:
    q_data, q_all, policy, _ = draw(seed)
    temperature = 0.7
    summed = conservative_gap(q_data, q_all, policy.log(), temperature=temperature, average=False)
    tempered = conservative_gap(q_data, q_all, policy.log(), temperature=temperature, average=False, temper_density=True)
    plain = conservative_gap(q_data, q_all, form="plain", temperature=temperature)
    for k in range(CRITICS):
        for i in range(ROWS):
            q, p, data = q_all[k, i].tolist(), policy[i].tolist(), q_data[k, i].item()
            total = sum(math.exp(x / temperature) / y for x, y in zip(q, p, strict=True))
            assert summed[k, i].item() == pytest.approx(temperature * math.log(total) - data)
            total = sum((math.exp(x) / y) ** (1 / temperature) for x, y in zip(q, p, strict=True))
            assert tempered[k, i].item() == pytest.approx(temperature * math.log(total) - data)
            total = sum(math.exp(x / temperature) for x in [*q, data])
            assert plain[k, i].item() == pytest.approx(temperature * math.log(total) - data)
    averaged = conservative_gap(q_data, q_all, policy.log(), temperature=temperature)
    torch.testing.assert_close(summed - averaged, torch.full_like(averaged, temperature * math.log(ACTIONS)))


def test_the_gradient_pushes_down_the_softmax_and_up_the_data() -> None:
    q_data, q_all, _, _ = draw(1)
    q_data, q_all = q_data.requires_grad_(), q_all.requires_grad_()
    up, down = torch.autograd.grad(conservative_penalty(conservative_gap(q_data, q_all, form="exact"), alpha=1.0), [q_data, q_all])
    torch.testing.assert_close(up, torch.full_like(up, -1 / ROWS))
    torch.testing.assert_close(down, q_all.softmax(-1) / ROWS)


def test_large_values_do_not_overflow() -> None:
    q_all = torch.tensor([[[1e4, -1e4]]])
    gap = conservative_gap(torch.tensor([[0.0]]), q_all, torch.tensor([[-1e3, 1e3]]))
    assert gap.item() == pytest.approx(1e4 + 1e3 - math.log(2))


def test_uniform_density() -> None:
    assert uniform_log_density(-torch.ones(3), torch.ones(3)).item() == pytest.approx(3 * math.log(0.5))
    assert uniform_log_density(torch.tensor([0.0, -2.0]), torch.tensor([4.0, 2.0])).item() == pytest.approx(-math.log(16))
    with pytest.raises(RheostatError, match=r"high \[1\]"):
        uniform_log_density(torch.zeros(3), torch.ones(1))


def test_the_published_multipliers() -> None:
    gap = torch.tensor([[1.0, 3.0], [0.0, 5.0]])  # means 2 and 2.5
    assert conservative_penalty(gap).item() == pytest.approx(5 * 4.5)
    assert conservative_penalty(gap, critics="mean").item() == pytest.approx(5 * 2.25)
    corl = conservative_penalty(gap, alpha=5.0, multiplier=2.0, threshold=1.0)
    assert corl.item() == pytest.approx(2 * 5 * (1 + 1.5))
    authors = conservative_penalty(gap, alpha=5.0, multiplier=2.0, threshold=1.0 / 5.0)
    assert authors.item() == pytest.approx(2 * (5 * 2 - 1 + 5 * 2.5 - 1))
    x = torch.tensor([0.3], requires_grad=True)
    loss = multiplier_loss(x, gap, threshold=1.0, alpha=5.0)
    assert loss.item() == pytest.approx(-0.5 * math.exp(0.3) * 5 * (1 + 1.5))


def test_the_multiplier_grows_above_the_threshold_and_never_reaches_the_critics() -> None:
    x, gap = torch.zeros(1, requires_grad=True), torch.full((2, 3), 4.0, requires_grad=True)
    grads = torch.autograd.grad(multiplier_loss(x, gap, threshold=5.0), [x, gap], allow_unused=True)
    assert grads[0].item() == pytest.approx(1.0) and grads[1] is None  # the gap is below: descent lowers it
    assert torch.autograd.grad(multiplier_loss(x, gap, threshold=3.0), x)[0].item() == pytest.approx(-1.0)
    penalty = conservative_penalty(gap, multiplier=lagrange_multiplier(x), threshold=3.0)
    assert torch.autograd.grad(penalty, [x, gap], allow_unused=True)[0] is None
    assert lagrange_multiplier(torch.tensor(1e4)).item() == pytest.approx(1e6)


def test_the_density_is_a_constant() -> None:
    q_data, q_all, policy, _ = draw(2)
    log_density = policy.log().requires_grad_()
    gap = conservative_gap(q_data.requires_grad_(), q_all, log_density)
    assert torch.autograd.grad(gap.sum(), [q_data, log_density], allow_unused=True)[1] is None


@given(seed=seeds, cut=st.integers(1, ROWS - 1), critics=st.sampled_from(["sum", "mean"]))
def test_laws(seed: int, cut: int, critics: Any) -> None:
    q_data, q_all, policy, weight = draw(seed)

    def penalty(rows: Any, poison: float | None = None, q_data: Tensor = q_data) -> Tensor:
        q = q_data if poison is None else q_data.masked_fill(weight == 0, poison)
        gap = conservative_gap(q[:, rows], q_all[:, rows], policy.log()[rows])
        return conservative_penalty(gap, weight=weight[rows], denominator=ROWS, critics=critics)

    whole = penalty(slice(None))
    torch.testing.assert_close(penalty(slice(0, cut)) + penalty(slice(cut, None)), whole)
    torch.testing.assert_close(penalty(torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))), whole)
    torch.testing.assert_close(penalty(weight != 0), whole)
    torch.testing.assert_close(penalty(slice(None), math.nan), whole)
    samples = torch.randperm(ACTIONS, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        conservative_gap(q_data, q_all[..., samples], policy.log()[:, samples]), conservative_gap(q_data, q_all, policy.log())
    )


ONES = (torch.ones(2, 3), torch.ones(2, 3, 4), torch.ones(3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conservative_gap(ONES[0].unsqueeze(-1), ONES[1], ONES[2]), r"q_data must have the shape \[critics, rows\]"),
        (lambda: conservative_gap(ONES[0], ONES[0], ONES[2]), r"\[critics, rows, samples\], not \[2, 3\]"),
        (lambda: conservative_gap(ONES[0][:, :1], ONES[1], ONES[2]), r"q_data \[2, 1\]"),
        (lambda: conservative_gap(ONES[0], ONES[1], ONES[2][:, :1]), r"log_density \[3, 1\]"),
        (lambda: conservative_gap(ONES[0], ONES[1]), "belongs to the form 'importance'"),
        (lambda: conservative_gap(ONES[0], ONES[1], ONES[2], form="plain"), "the form is 'plain'"),
        (lambda: conservative_gap(ONES[0], ONES[1], form="sum"), "Unknown form of the conservative gap 'sum'"),  # type: ignore[arg-type]
        (lambda: conservative_penalty(ONES[0][0]), r"gap must have the shape \[critics, rows\]"),
        (lambda: conservative_penalty(ONES[0], weight=torch.ones(3, 1)), r"weight \[3, 1\]"),
        (lambda: conservative_penalty(ONES[0], critics="max"), "Unknown reduction over critics 'max'"),  # type: ignore[arg-type]
        (lambda: conservative_penalty(ONES[0], multiplier=torch.ones(2)), "multiplier is one number"),
        (lambda: multiplier_loss(torch.ones(2), ONES[0], threshold=1.0), "log_multiplier is one number"),
    ],
)
def test_mistakes_are_refused(call: Any, message: str) -> None:
    with pytest.raises(RheostatError, match=message):
        call()
