"""The preference model's two orders, and what is read from log-ratios."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.objectives.preference_model import both_orders_loss, debiased_preference, path_kl, prefers, win_rate


@given(st.integers(0, 1000), st.floats(-5, 5))
def test_a_bias_for_the_first_place_cancels_in_the_decision(seed: int, bias: float) -> None:
    logit = torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    decided = debiased_preference(logit + bias, -logit + bias) > 0
    assert torch.equal(decided, logit > 0)


def test_a_bias_costs_likelihood() -> None:
    logit = torch.tensor([1.0, -0.5, 2.0])
    assert both_orders_loss(logit + 1, -logit + 1) > both_orders_loss(logit, -logit)


def test_ties_win_one_half_and_are_no_right_answer() -> None:
    assert float(win_rate(torch.tensor([1.0, 0.0, -3.0, 0.0]))) == 0.5
    assert prefers(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0])).tolist() == [True, False, False]


def test_the_kl_along_paths_is_the_kl_of_answers() -> None:
    """On two tokens of two letters, weighting every path by its probability gives the KL of the distribution over answers."""
    draw = torch.Generator().manual_seed(0)
    tables = [torch.randn(3, 2, generator=draw, dtype=torch.float64).log_softmax(-1) for _ in range(2)]  # empty, after a, after b
    paths = [(a, b) for a in range(2) for b in range(2)]
    logits = [torch.stack([torch.stack([table[0], table[1 + a]]) for a, _ in paths]) for table in tables]
    logp = [torch.stack([table[0, a] + table[1 + a, b] for a, b in paths]) for table in tables]
    exact = (logp[0].exp() * (logp[0] - logp[1])).sum()
    each, _ = path_kl(*logits, torch.ones(4, 2, dtype=torch.bool))
    torch.testing.assert_close((logp[0].exp() * each.sum(-1)).sum(), exact)
    masked, mean = path_kl(*logits, torch.zeros(4, 2, dtype=torch.bool))
    assert float(masked.abs().max()) == 0 and float(mean) == 0
