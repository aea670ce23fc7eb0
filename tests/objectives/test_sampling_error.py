"""Exact sampling error of tables."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.objectives.sampling_error import empirical_policy, sampling_error_tabular, visit_counts


def test_visit_counts() -> None:
    counts = visit_counts(torch.tensor([0, 0, 2]), torch.tensor([1, 1, 0]), shape=(3, 2))
    assert counts.tolist() == [[0, 2], [0, 0], [1, 0]]


def test_hand_computed() -> None:
    target = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    counts = torch.tensor([[3, 1], [0, 0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert sampling_error_tabular(target, counts).item() == pytest.approx(expected, rel=1e-5)
    assert empirical_policy(counts).tolist() == [[0.75, 0.25], [0.0, 0.0]]


@given(seed=st.integers(0, 2**32 - 1))
def test_it_is_a_visit_weighted_kl(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(4, 3, generator=generator, dtype=torch.float64).softmax(-1)
    counts = torch.randint(1, 6, (4, 3), generator=generator)
    kl = (empirical_policy(counts) * (empirical_policy(counts).log() - target.log())).sum(-1)
    error = sampling_error_tabular(target, counts)
    torch.testing.assert_close(error, (kl * counts.sum(-1)).sum() / counts.sum())
    assert error >= 0
    torch.testing.assert_close(sampling_error_tabular(empirical_policy(counts), counts).item(), 0.0, atol=1e-12, rtol=0)


def test_fractional_counts_are_weights() -> None:
    torch.testing.assert_close(empirical_policy(torch.tensor([[0.1, 0.3]])), torch.tensor([[0.25, 0.75]]))


def test_action_the_target_never_takes_is_infinitely_wrong() -> None:
    assert sampling_error_tabular(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 1]])).item() == math.inf


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match="needs data"):
        sampling_error_tabular(torch.ones(1, 2) / 2, torch.zeros(1, 2))
    with pytest.raises(RheostatError, match="one shape"):
        sampling_error_tabular(torch.ones(1, 2) / 2, torch.zeros(2))
