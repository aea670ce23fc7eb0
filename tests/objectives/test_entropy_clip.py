"""The Entropy-Clip Rule: prediction against the exact change, and the estimator from samples against enumeration."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.clipping import Clip
from rheostat.objectives.entropy_clip import clipped_gradient, entropy_change, entropy_drift, softmax_entropy

SEEDS = st.integers(0, 2**31)
LOW, HIGH = 0.8, 1.2


def contexts(seed: int, actions: int = 6, count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, advantages and old logits, float64."""
    generator = torch.Generator().manual_seed(seed)
    logits, advantage, moved = (torch.randn(count, actions, generator=generator, dtype=torch.float64) for _ in range(3))
    return logits, advantage, logits + 0.4 * moved


def ratio_of(logits: Tensor, old: Tensor) -> Tensor:
    return (torch.log_softmax(logits, -1) - torch.log_softmax(old, -1)).exp()


@given(SEEDS)
def test_gradient_is_that_of_the_clipped_surrogate(seed: int) -> None:
    logits, advantage, old = contexts(seed)
    logits.requires_grad_()
    surrogate = -(torch.softmax(old, -1) * Clip(1 - LOW, HIGH - 1).loss(ratio_of(logits, old), advantage, logits)).sum()
    (expected,) = torch.autograd.grad(surrogate, logits)
    found = clipped_gradient(logits.detach(), advantage, ratio_of(logits.detach(), old), low=LOW, high=HIGH)
    torch.testing.assert_close(found.gradient, expected)


@given(SEEDS, st.booleans())
def test_prediction_is_right_to_second_order(seed: int, natural: bool) -> None:
    logits, advantage, old = contexts(seed)
    found = clipped_gradient(logits, advantage, ratio_of(logits, old), low=LOW, high=HIGH)
    direction = found.natural if natural else found.gradient
    errors = []
    for eta in (1e-3, 1e-4):
        exact = softmax_entropy(logits + eta * direction) - softmax_entropy(logits)
        errors.append((exact - entropy_change(logits, eta * direction)).abs().max().item())
    assert errors[1] < 1e-6 and errors[1] < 0.02 * errors[0] + 1e-12


@given(SEEDS)
def test_admitting_unlikely_good_actions_raises_entropy(seed: int) -> None:
    """Widening the upper bound over positive actions with log pi < -H, under a natural gradient: the change is never negative."""
    logits, advantage, old = contexts(seed)
    ratio = ratio_of(logits, old)
    logp = torch.log_softmax(logits, -1)
    unlikely = logp < -softmax_entropy(logits).unsqueeze(-1)
    advantage = torch.where((advantage > 0) & (ratio > HIGH) & ~unlikely, 0.0, advantage)  # only unlikely ones are admitted
    narrow, wide = (entropy_change(logits, clipped_gradient(logits, advantage, ratio, low=LOW, high=high).natural) for high in (HIGH, 1e9))
    assert bool((wide >= narrow - 1e-12).all())


@given(SEEDS)
def test_estimate_from_samples_is_the_natural_gradient_prediction(seed: int) -> None:
    """The mean over *every* action, weighted as the old policy draws it, is the exact change per unit of a natural-gradient step."""
    logits, advantage, old = contexts(seed, count=1)
    ratio, logp = ratio_of(logits, old), torch.log_softmax(logits, -1)
    entropy = softmax_entropy(logits).unsqueeze(-1).expand_as(logits)
    clipped = Clip(1 - LOW, HIGH - 1).clipped(ratio, advantage)
    drawn = torch.softmax(old, -1).flatten()
    parts = [entropy_drift(*(x[:, [a]] for x in (logp, entropy, advantage, ratio, clipped))) for a in range(logits.shape[1])]
    kept, cut = (sum(share * part[i] for share, part in zip(drawn, parts, strict=True)) for i in (0, 1))
    expected = entropy_change(logits, clipped_gradient(logits, advantage, ratio, low=LOW, high=HIGH).natural)[0]
    whole = entropy_change(logits, clipped_gradient(logits, advantage, ratio, low=-1.0, high=1e9).natural)[0]
    torch.testing.assert_close(torch.as_tensor(kept), expected)
    torch.testing.assert_close(torch.as_tensor(kept + cut), whole)


def test_masked_tokens_may_be_nan() -> None:
    values = torch.tensor([[-1.0, float("nan")]])
    mask = torch.tensor([[True, False]])
    clipped = torch.zeros_like(mask)
    kept, cut = entropy_drift(values, values + 1.5, values, values + 2, clipped, mask)
    assert kept.item() == pytest.approx(-(1.0 * (-1.0 + 0.5) * -1.0)) and cut.item() == 0
    with pytest.raises(RheostatError, match="must have one shape"):
        entropy_drift(values, values, values, values, clipped[:, :1])
