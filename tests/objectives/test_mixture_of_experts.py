"""Gradients of a mixture's weights: closed forms, fixed points, expectations by enumeration, and the laws of all losses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.mixture_of_experts import best_expert, expert_shares, frequency_loss, relaxed_choice, score_loss

ROWS, EXPERTS = 6, 3
seeds = st.integers(0, 2**32 - 1)


def draw(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and values ``[B, K]``, and an expert per row."""
    generator = torch.Generator().manual_seed(seed)
    logits, value = torch.randn(2, ROWS, EXPERTS, generator=generator, dtype=torch.float64)
    return logits, value, torch.randint(EXPERTS, (ROWS,), generator=generator)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def test_the_best_is_the_first_of_equals_and_a_constant() -> None:
    value = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0], [1.0, 2.0, 2.0]], requires_grad=True)
    best = best_expert(value)
    assert best.tolist() == [1, 0, 1] and not best.requires_grad


def test_the_frequency_loss_is_a_mean_over_rows_and_experts() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    loss = frequency_loss(logits, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((2 * 0.25**2 + 2 * 0.5**2) / 4)


def test_the_frequency_is_the_fixed_point() -> None:
    """Where the weights are the shares in which each expert is the best, the gradient vanishes; anywhere else it does not."""
    best = torch.tensor([0] * 6 + [1] * 3 + [2])
    shares = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    for weights, still in ((shares, True), (torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), False)):
        logits = weights.log().requires_grad_()
        found = gradient(frequency_loss(logits.expand(10, 3), best), logits)
        assert bool((found.abs() < 1e-15).all()) == still


@given(seed=seeds)
def test_the_frequency_loss_raises_the_best_expert_alone(seed: int) -> None:
    logits, _, best = draw(seed)
    found = gradient(frequency_loss(logits.requires_grad_(), best), logits)
    assert bool((found.gather(-1, best.unsqueeze(-1)) < 0).all())
    torch.testing.assert_close(found.sum(-1), torch.zeros(ROWS, dtype=torch.float64))


@given(seed=seeds)
def test_the_expected_score_is_the_gradient_of_the_expected_value(seed: int) -> None:
    """Summed over all draws with their probabilities."""
    logits, value, _ = draw(seed)
    logits.requires_grad_()
    weights = logits.detach().softmax(-1)
    expected = torch.zeros_like(logits)
    for k in range(EXPERTS):
        drawn = torch.full((ROWS,), k)
        expected += weights[:, k : k + 1] * gradient(score_loss(logits, drawn, value), logits)
    exact = gradient(-(logits.softmax(-1) * value).sum(-1).mean(), logits)
    torch.testing.assert_close(expected, exact)


@given(seed=seeds, shift=st.floats(-5, 5))
def test_the_baseline_takes_away_what_all_experts_share(seed: int, shift: float) -> None:
    logits, value, drawn = draw(seed)
    logits.requires_grad_()
    torch.testing.assert_close(
        gradient(score_loss(logits, drawn, value + shift), logits), gradient(score_loss(logits, drawn, value), logits)
    )
    assert bool((gradient(score_loss(logits, drawn, torch.ones_like(value)), logits).abs() < 1e-15).all())


def test_a_relaxed_choice_is_one_hot_and_follows_the_weights() -> None:
    logits = torch.tensor([0.5, 0.0, -1.0]).requires_grad_()
    gumbel = -torch.empty(20_000, 3).exponential_(generator=torch.Generator().manual_seed(0)).log()
    choice = relaxed_choice(logits.expand(20_000, 3), gumbel, 0.7)
    assert choice.detach().unique().tolist() == [0.0, 1.0] and bool((choice.detach().sum(-1) == 1).all())
    torch.testing.assert_close(choice.detach().mean(0), logits.detach().softmax(-1), atol=0.015, rtol=0)
    value = torch.tensor([1.0, 2.0, 3.0])
    exact = gradient((logits.softmax(-1) * value).sum(), logits)
    found = gradient((choice * value).sum(-1).mean(), logits)
    assert torch.cosine_similarity(found, exact, dim=0) > 0.9  # biased, and yet it points the right way


@given(seed=seeds, temperature=st.floats(0.1, 5))
def test_a_relaxed_choice_has_the_gradient_of_the_softmax(seed: int, temperature: float) -> None:
    logits, value, _ = draw(seed)
    logits.requires_grad_()
    gumbel = draw(seed + 1)[0]
    found = gradient((relaxed_choice(logits, gumbel, temperature) * value).sum(), logits)
    soft = gradient((((logits + gumbel) / temperature).softmax(-1) * value).sum(), logits)
    torch.testing.assert_close(found, soft)


@given(seed=seeds, order=st.permutations(range(EXPERTS)))
def test_the_order_of_the_experts_means_nothing(seed: int, order: list[int]) -> None:
    logits, value, drawn = draw(seed)
    place = torch.tensor(order).argsort()  # where each expert has gone
    torch.testing.assert_close(place[best_expert(value)], best_expert(value[:, order]))
    torch.testing.assert_close(frequency_loss(logits[:, order], place[drawn]), frequency_loss(logits, drawn))
    torch.testing.assert_close(score_loss(logits[:, order], place[drawn], value[:, order]), score_loss(logits, drawn, value))


def test_one_expert_has_nothing_to_learn() -> None:
    logits, value, drawn = torch.randn(4, 1, requires_grad=True), torch.randn(4, 1), torch.zeros(4, dtype=torch.int64)
    choice = relaxed_choice(logits, torch.randn(4, 1), 1.0)
    for loss in (frequency_loss(logits, drawn), score_loss(logits, drawn, value), (choice * value).sum()):
        assert bool((gradient(loss, logits) == 0).all())
    assert frequency_loss(logits, drawn).item() == 0 and bool((choice == 1).all())


@given(seed=seeds, cut=st.integers(1, ROWS - 1))
def test_a_batch_is_the_sum_of_its_parts_in_any_order(seed: int, cut: int) -> None:
    logits, value, drawn = draw(seed)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))
    weight = torch.rand(ROWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def losses(rows: slice | Tensor) -> Tensor:
        return torch.stack(
            [
                frequency_loss(logits[rows], drawn[rows], weight=weight[rows], denominator=ROWS),
                score_loss(logits[rows], drawn[rows], value[rows], denominator=ROWS),
            ]
        )

    whole = losses(slice(None))
    torch.testing.assert_close(losses(slice(0, cut)) + losses(slice(cut, None)), whole)
    torch.testing.assert_close(losses(order), whole)


def test_rows_of_weight_zero_may_hold_nan() -> None:
    logits, _, best = draw(0)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    poisoned = logits.masked_fill((weight == 0).unsqueeze(-1), math.nan).requires_grad_()
    loss = frequency_loss(poisoned, best, weight=weight)
    torch.testing.assert_close(loss, frequency_loss(logits, best, weight=weight))
    found = gradient(loss, poisoned)
    assert bool(found.isfinite().all()) and bool((found[weight == 0] == 0).all())


def test_shares_for_the_log() -> None:
    found = expert_shares(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
    assert found == pytest.approx({"weight_entropy": math.log(2), "share_0": 0.5, "share_1": 0.5, "best_0": 0.75, "best_1": 0.25})
    assert set(expert_shares(torch.zeros(4, 2))) == {"weight_entropy", "share_0", "share_1"}


def test_wrong_shapes_and_temperatures_are_refused() -> None:
    logits, index = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    for call in (
        lambda: frequency_loss(logits, index.unsqueeze(-1)),
        lambda: score_loss(logits, index, torch.zeros(4)),
        lambda: score_loss(logits, index.unsqueeze(-1), logits),
        lambda: relaxed_choice(logits, torch.zeros(4), 1.0),
    ):
        with pytest.raises(RheostatError, match="one shape"):
            call()
    with pytest.raises(RheostatError, match="above 0"):
        relaxed_choice(logits, logits, 0.0)
