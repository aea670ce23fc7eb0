"""Statistics over seeds, against rliable and scipy and by their laws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rheostat.analysis import statistics as ours
from rheostat.errors import RheostatError

scores = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def metrics() -> Any:
    return pytest.importorskip("rliable.metrics", reason="needs rliable: pip install 'rheostat[test]'")


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("rliable.library", reason="needs rliable: pip install 'rheostat[test]'")


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """[seeds, tasks]"""
    generator = rng(1)
    return generator.gamma(2.0, 1.0, size=(7, 4)) * np.array([1.0, 2.0, 0.5, 1.5])


def by_task(matrix: np.ndarray) -> dict[str, np.ndarray]:
    return {f"task {column}": matrix[:, column] for column in range(matrix.shape[1])}


def test_aggregates_equal_rliable(table: np.ndarray, metrics: Any) -> None:
    strata = ours.as_strata(by_task(table))
    assert ours.mean(strata) == pytest.approx(metrics.aggregate_mean(table))
    assert ours.median(strata) == pytest.approx(metrics.aggregate_median(table))
    assert ours.iqm(strata) == pytest.approx(metrics.aggregate_iqm(table))
    assert ours.optimality_gap(1.2)(strata) == pytest.approx(metrics.aggregate_optimality_gap(table, 1.2))


@pytest.mark.parametrize("n", range(1, 14))
def test_iqm_is_scipys_trimmed_mean(n: int) -> None:
    values = rng(n).normal(size=n)
    assert ours.iqm([values]) == pytest.approx(scipy.stats.trim_mean(values, 0.25))


@pytest.mark.parametrize(("statistic", "theirs"), [(ours.iqm, "aggregate_iqm"), (ours.mean, "aggregate_mean")])
def test_stratified_bootstrap_agrees_with_rliable(
    table: np.ndarray, metrics: Any, library: Any, statistic: ours.Statistic, theirs: str
) -> None:
    """Two Monte-Carlo intervals of the same distribution: equal up to resampling noise, a few hundredths of their width."""
    interval = ours.bootstrap(by_task(table), statistic, generator=rng(), resamples=20_000)
    _, limits = library.get_interval_estimates(
        {"x": table}, lambda x: np.array([getattr(metrics, theirs)(x)]), reps=20_000, random_state=np.random.RandomState(0)
    )
    low, high = limits["x"][:, 0]
    width = high - low
    assert interval.low == pytest.approx(low, abs=0.04 * width)
    assert interval.high == pytest.approx(high, abs=0.04 * width)
    assert interval.n == table.size


def test_bootstrap_agrees_with_scipy() -> None:
    values = rng(3).normal(size=15)
    interval = ours.bootstrap(values, ours.mean, generator=rng(), resamples=20_000)
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=rng(5)).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))


def test_strata_are_resampled_within_tasks() -> None:
    """Two constant tasks have no spread at all; pooled resampling would show one."""
    interval = ours.bootstrap({"low": [0.0] * 5, "high": [10.0] * 5}, ours.mean, generator=rng())
    assert (interval.low, interval.estimate, interval.high) == (5.0, 5.0, 5.0)


def test_probability_of_improvement_equals_rliable_and_mann_whitney(table: np.ndarray, metrics: Any, library: Any) -> None:
    other = rng(2).gamma(2.0, 1.3, size=(5, 4))
    interval = ours.probability_of_improvement(by_task(table), by_task(other), generator=rng())
    assert interval.estimate == pytest.approx(metrics.probability_of_improvement(table, other))
    one = ours.improvement([table[:, 0]], [other[:, 0]])
    assert one == pytest.approx(scipy.stats.mannwhitneyu(table[:, 0], other[:, 0]).statistic / 35)
    pairs = {"x,y": (table, other)}
    _, limits = library.get_interval_estimates(
        pairs, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=800, random_state=np.random.RandomState(0)
    )
    assert (interval.low, interval.high) == pytest.approx(tuple(limits["x,y"][:, 0]), abs=0.04)


def test_performance_profile_equals_rliable(table: np.ndarray, library: Any) -> None:
    thresholds = np.linspace(0.0, 4.0, 9)
    profile = ours.performance_profile(by_task(table), thresholds, generator=rng())
    theirs, limits = library.create_performance_profile({"x": table}, thresholds, reps=2000)
    np.testing.assert_allclose(profile.estimate, theirs["x"])
    np.testing.assert_allclose(profile.low, limits["x"][0], atol=0.06)
    np.testing.assert_allclose(profile.high, limits["x"][1], atol=0.06)
    assert (np.diff(profile.estimate) <= 0).all()


@pytest.mark.parametrize(("successes", "trials", "level"), [(0, 5, 0.95), (5, 5, 0.95), (3, 10, 0.9), (250, 1000, 0.99), (1, 1, 0.95)])
def test_wilson_equals_scipy(successes: int, trials: int, level: float) -> None:
    interval = ours.wilson(successes, trials, level=level)
    theirs = scipy.stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert interval.estimate == successes / trials
    assert interval.n == trials


def test_samples_of_one_prompt_are_no_independent_evidence() -> None:
    """Copying every sample ten times leaves the interval as it is, and prompts with more samples weigh no more."""
    generator = rng(4)
    outcomes = [generator.random(4) < chance for chance in generator.random(30)]
    once = ours.clustered_share(outcomes, generator=rng())
    copied = ours.clustered_share([np.tile(samples, 10) for samples in outcomes], generator=rng())
    assert (once.low, once.high) == pytest.approx((copied.low, copied.high))
    assert ours.clustered_share([[1] * 100, [0]], generator=rng()).estimate == 0.5
    naive = ours.wilson(int(sum(map(np.sum, outcomes))), 120)
    assert once.high - once.low > naive.high - naive.low


def test_area_under_curve() -> None:
    assert ours.area_under_curve([0, 10], [0, 1]) == pytest.approx(0.5)
    assert ours.area_under_curve([0, 10, 40], [0, 6, 6]) == pytest.approx(np.trapezoid([0, 6, 6], [0, 10, 40]) / 40)
    assert ours.area_under_curve([0, 10], [100, 300], bounds=(100, 300)) == pytest.approx(0.5)
    assert ours.area_under_curve([5], [7]) == 7
    assert ours.area_under_curve([0, 10, 20], [0, 10, 0], until=15) == pytest.approx((50 + 37.5) / 15)
    assert ours.area_under_curve([0, 10], [3, 3], until=99) == 3


def test_the_same_generator_gives_the_same_interval() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    assert ours.bootstrap(values, generator=rng(7)) == ours.bootstrap(values, generator=rng(7))


def test_one_seed_has_an_unbounded_interval() -> None:
    interval = ours.bootstrap([3.0], generator=rng())
    assert (interval.estimate, interval.low, interval.high, interval.n) == (3.0, -math.inf, math.inf, 1)
    assert ours.difference([3.0], [1.0, 2.0], generator=rng()).low == -math.inf
    chance = ours.probability_of_improvement([3.0], [1.0], generator=rng())
    assert (chance.estimate, chance.low, chance.high) == (1.0, 0.0, 1.0)


@given(scores, scores)
def test_probability_of_improvement_is_antisymmetric(a: list[float], b: list[float]) -> None:
    there, back = ours.improvement([np.array(a)], [np.array(b)]), ours.improvement([np.array(b)], [np.array(a)])
    assert there + back == pytest.approx(1.0)
    assert 0 <= there <= 1


@given(scores, st.floats(-100, 100), st.floats(0.1, 10))
def test_iqm_follows_shift_and_scale_and_ignores_order(values: list[float], shift: float, scale: float) -> None:
    array = np.array(values)
    expected = float(ours.iqm([array])) * scale + shift
    assert ours.iqm([array[::-1] * scale + shift]) == pytest.approx(expected, abs=1e-8)
    assert array.min() - 1e-9 <= ours.iqm([array]) <= array.max() + 1e-9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ours.as_strata([]), "at least one seed"),
        (lambda: ours.as_strata({}), "at least one task"),
        (lambda: ours.as_strata({"a": [1.0, math.nan]}), r"\['a'\] holds nan at position 1"),
        (lambda: ours.as_strata([[1.0, 2.0]]), r"shape \[1, 2\]"),
        (lambda: ours.bootstrap([1.0, 2.0], generator=rng(), level=95), "between 0 and 1"),
        (lambda: ours.bootstrap([1.0], generator=rng(), level=0), "between 0 and 1"),
        (lambda: ours.difference({"a": [1.0]}, {"b": [1.0]}, generator=rng()), "different tasks"),
        (lambda: ours.wilson(3, 2), "3 successes in 2 trials"),
        (lambda: ours.wilson(0, 0), "at least one trial"),
        (lambda: ours.area_under_curve([0, 1], [0]), r"\[2\] and \[1\]"),
        (lambda: ours.area_under_curve([0, 1], [0, math.inf]), "not finite"),
        (lambda: ours.area_under_curve([1, 0], [0, 1]), "not decrease"),
    ],
)
def test_bad_input_is_one_sentence(call, words: str) -> None:
    with pytest.raises(RheostatError, match=words):
        call()
