"""Counts of a mixed batch, and what can never be supplied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.buffers.mixing import mixed_counts
from rheostat.errors import RheostatError


@given(st.integers(2, 500), st.floats(0.0, 0.7))
def test_counts_fill_the_batch(size: int, share: float) -> None:
    fresh, stale = mixed_counts(size, share)
    assert fresh + stale == size and fresh >= 1 and abs(stale - share * size) <= 0.5


def test_refusals() -> None:
    assert mixed_counts(16, 0.4, window=1) == (10, 6) and mixed_counts(16, 0.0, window=0) == (16, 0)
    with pytest.raises(RheostatError, match=r"A stale share of 1\.0 leaves nothing fresh"):
        mixed_counts(16, 1.0)
    with pytest.raises(RheostatError, match=r"A stale share of 0\.9 of a batch of 4 leaves nothing fresh"):
        mixed_counts(4, 0.9)
    with pytest.raises(RheostatError, match="A window of 0 batches holds nothing stale"):
        mixed_counts(16, 0.4, window=0)
    with pytest.raises(RheostatError, match="asks for 13 of a batch of 16, but a window of 2 batches with 3 fresh ones each holds only 6"):
        mixed_counts(16, 0.8, window=2)
    assert mixed_counts(16, 0.8, window=5) == (3, 13)
