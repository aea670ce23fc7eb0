"""AM-Q and its gate."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.credit.am_q import am_q_score, improved
from rheostat.errors import RheostatError


@given(seed=st.integers(0, 2**32 - 1))
def test_every_visited_pair_counts_the_same(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    alive = torch.rand(2, 4, 3, generator=generator) < 0.6
    alive[:, 0] = True
    expected = torch.stack([one[kept].mean() for one, kept in zip(q, alive, strict=True)])
    torch.testing.assert_close(am_q_score(q.masked_fill(~alive, math.nan), alive), expected)


def test_long_episodes_count_more_than_short_ones() -> None:
    q = torch.tensor([[1.0, 10.0], [1.0, 0.0], [1.0, 0.0]])
    alive = torch.tensor([[True, True], [True, False], [True, False]])
    assert am_q_score(q, alive).item() == pytest.approx(13 / 4)


def test_only_what_is_strictly_better_passes() -> None:
    assert improved(torch.tensor([0.2, -0.5, 0.3]), torch.tensor([0.1, -0.2, 0.3])).tolist() == [True, False, False]


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match="there are none"):
        am_q_score(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(RheostatError, match="alive"):
        am_q_score(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool))
    with pytest.raises(RheostatError, match="one shape"):
        improved(torch.zeros(2), torch.zeros(3))
