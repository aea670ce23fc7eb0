"""Choosing among k policies: the mean over all ways to choose them."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.analysis.online_selection import by_budget, expected_best
from rheostat.errors import RheostatError

returns = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=7)


@given(returns, st.integers(1, 7))
def test_it_is_the_mean_over_all_choices(values: list[float], k: int) -> None:
    k = min(k, len(values))
    every = [max(some) for some in itertools.combinations(values, k)]
    assert expected_best(values, k) == pytest.approx(statistics.fmean(every), abs=1e-9)


@given(returns)
def test_it_rises_from_the_mean_to_the_best(values: list[float]) -> None:
    curve = list(by_budget(values).values())
    assert curve[0] == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert curve[-1] == pytest.approx(max(values), abs=1e-9)
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(curve))


def test_budgets_double_up_to_all() -> None:
    assert list(by_budget([0.0] * 11)) == [1, 2, 4, 8, 11]
    assert by_budget([]) == {}


@pytest.mark.parametrize(
    ("values", "k", "words"), [([1.0], 2, "2 of 1"), ([1.0], 0, "0 of 1"), ([], 1, "1 of 0"), ([math.nan], 1, "finite")]
)
def test_what_cannot_be_tried_is_refused(values: list[float], k: int, words: str) -> None:
    with pytest.raises(RheostatError, match=words):
        expected_best(values, k)
