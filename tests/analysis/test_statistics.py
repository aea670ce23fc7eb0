"""Statistics over seeds, against rliable and scipy and by their laws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rheostat.analysis import shares
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


def test_t_intervals_are_scipys() -> None:
    values, others = rng(3).normal(size=15), rng(4).normal(size=9) * 3
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = ours.interval_of(values, ours.mean)
    assert (found.low, found.high, found.n) == (pytest.approx(theirs.low), pytest.approx(theirs.high), 15)
    welch = scipy.stats.ttest_ind(values, others, equal_var=False).confidence_interval(0.9)
    gap = ours.difference(values, others, ours.mean, level=0.9)
    assert (gap.low, gap.high) == (pytest.approx(welch.low), pytest.approx(welch.high))


def test_the_interval_of_the_iqm_is_the_trimmed_t_interval() -> None:
    values = rng(5).normal(size=16)
    theirs = scipy.stats.ttest_ind(values, [0.0] * 16, trim=0.25, equal_var=False)  # Yuen's test against a constant sample
    found = ours.interval_of(values, ours.iqm)
    half = scipy.stats.t.ppf(0.975, 7) * found.estimate / theirs.statistic
    assert found.high - found.estimate == pytest.approx(abs(half))
    centre, low, high = ours.iqm_bounds(np.stack([values, 2 * values]))
    assert (low[0], high[0], centre[1], high[1]) == pytest.approx((found.low, found.high, 2 * found.estimate, 2 * found.high))


def test_the_jackknife_gives_the_t_interval_of_a_mean() -> None:
    values = rng(6).normal(size=9)
    plain, jackknifed = ours.interval_of(values, ours.mean), ours.interval_of(values, lambda strata: ours.mean(strata))
    assert (plain.low, plain.high) == (pytest.approx(jackknifed.low), pytest.approx(jackknifed.high))


DRAWS = {
    "normal": (lambda g, shape: g.normal(size=shape), 0.0, 0.0),
    "t3": (lambda g, shape: g.standard_t(3, size=shape), 0.0, 0.0),
    "exponential": (lambda g, shape: g.exponential(size=shape), 1.0, 0.738),  # its interquartile mean: 1 - log(2) + log(27 / 16) / 2 ...
}


@pytest.mark.parametrize("n", [5, 8, 12, 24])
def test_intervals_cover_as_often_as_they_say(n: int) -> None:
    """Where the percentile bootstrap of five to eight seeds covers .82 to .89."""
    trials = 4_000
    for name, (draw, centre, middle) in DRAWS.items():
        values = draw(rng(n), (trials, n))
        _, low, high = ours.t_bounds(values)
        covered = float(((low <= centre) & (centre <= high)).mean())
        assert covered == pytest.approx(0.95, abs=0.02) if name == "normal" else covered > 0.87
        _, low, high = ours.iqm_bounds(values)
        assert ((low <= middle) & (middle <= high)).mean() > (0.92 if name != "exponential" else 0.88)


def test_the_interquartile_mean_of_the_exponential() -> None:
    large = np.sort(rng(0).exponential(size=400_000))
    assert large[100_000:300_000].mean() == pytest.approx(DRAWS["exponential"][2], abs=0.005)


def test_intervals_over_several_tasks_cover_too() -> None:
    generator, trials = rng(8), 800
    shifts = {"a": 0.0, "b": 1.0, "c": 2.0}
    covered = {"mean": 0, "median": 0, "iqm": 0}
    pooled = np.sort(np.concatenate([generator.normal(shift, 1, 100_000) for shift in shifts.values()]))
    truth = {"mean": 1.0, "median": 1.0, "iqm": pooled[75_000:225_000].mean()}
    for _ in range(trials):
        scores = {task: generator.normal(shift, 1, 8) for task, shift in shifts.items()}
        for name in covered:
            found = ours.interval_of(scores, getattr(ours, name))
            covered[name] += found.low <= truth[name] <= found.high
    assert all(0.92 <= count / trials <= 0.985 for count in covered.values()), covered


def test_shares_cover_as_often_as_they_say() -> None:
    generator, trials = rng(9), 1_500
    for p, n in ((0.5, 8), (0.9, 16), (0.3, 24)):
        hits = [shares.share_of((generator.random(n) < p).astype(float)) for _ in range(trials)]
        assert np.mean([one.low <= p <= one.high for one in hits]) > 0.925, (p, n)
    runs = generator.normal(size=(trials, 2, 8)) + np.array([0.5, 0.0])[:, None]
    truth = scipy.stats.norm.cdf(0.5 / math.sqrt(2))
    found = [shares.probability_of_improvement(a, b) for a, b in runs]
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.985


@pytest.mark.parametrize("n", range(2, 40))
def test_shares_without_exception_reach_exactly_to_the_end(n: int) -> None:
    """Where no unit or every unit succeeds, rounding leaves no 1e-17 at that end."""
    none, all_of_them = shares.share_of([0.0] * n), shares.share_of([1.0] * n)
    assert none.low == 0.0 < none.high and all_of_them.high == 1.0 > all_of_them.low


def test_strata_vary_within_tasks() -> None:
    """Two constant tasks have no spread at all; pooled they would show one."""
    interval = ours.interval_of({"low": [0.0] * 5, "high": [10.0] * 5}, ours.mean)
    assert (interval.low, interval.estimate, interval.high) == (5.0, 5.0, 5.0)


def test_probability_of_improvement_equals_rliable_and_mann_whitney(table: np.ndarray, metrics: Any) -> None:
    other = rng(2).gamma(2.0, 1.3, size=(5, 4))
    interval = shares.probability_of_improvement(by_task(table), by_task(other))
    assert interval.estimate == pytest.approx(metrics.probability_of_improvement(table, other))
    one = shares.improvement([table[:, 0]], [other[:, 0]])
    assert one == pytest.approx(scipy.stats.mannwhitneyu(table[:, 0], other[:, 0]).statistic / 35)
    assert interval.low < interval.estimate < interval.high


def test_complete_separation_is_no_certainty() -> None:
    found = shares.probability_of_improvement([3.0, 4, 5, 6, 7, 8, 9, 10], [1.0] * 8)
    assert (found.estimate, found.high) == (1.0, 1.0) and 0.6 < found.low < 0.9
    back = shares.probability_of_improvement([1.0] * 8, [3.0, 4, 5, 6, 7, 8, 9, 10])
    assert back.high == pytest.approx(1 - found.low)


def test_performance_profile_equals_rliable(table: np.ndarray, library: Any) -> None:
    thresholds = np.linspace(0.0, 4.0, 9)
    profile = shares.performance_profile(by_task(table), thresholds)
    theirs, limits = library.create_performance_profile({"x": table}, thresholds, reps=2000)
    np.testing.assert_allclose(profile.estimate, theirs["x"])
    np.testing.assert_allclose(profile.low, limits["x"][0], atol=0.13)
    np.testing.assert_allclose(profile.high, limits["x"][1], atol=0.13)  # theirs collapses at the ends
    assert (np.diff(profile.estimate) <= 0).all()


@pytest.mark.parametrize(("successes", "trials", "level"), [(0, 5, 0.95), (5, 5, 0.95), (3, 10, 0.9), (250, 1000, 0.99), (1, 1, 0.95)])
def test_wilson_equals_scipy(successes: int, trials: int, level: float) -> None:
    interval = shares.wilson(successes, trials, level=level)
    theirs = scipy.stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert interval.estimate == successes / trials
    assert interval.n == trials


def test_samples_of_one_prompt_are_no_independent_evidence() -> None:
    """Copying every sample ten times leaves the interval as it is, and prompts with more samples weigh no more."""
    generator = rng(4)
    outcomes = [generator.random(4) < chance for chance in generator.random(30)]
    once = shares.clustered_share(outcomes)
    copied = shares.clustered_share([np.tile(samples, 10) for samples in outcomes])
    assert (once.low, once.high) == pytest.approx((copied.low, copied.high))
    assert shares.clustered_share([[1] * 100, [0]]).estimate == 0.5
    naive = shares.wilson(int(sum(map(np.sum, outcomes))), 120)
    assert once.high - once.low > naive.high - naive.low


def test_area_under_curve() -> None:
    assert ours.area_under_curve([0, 10], [0, 1]) == pytest.approx(0.5)
    assert ours.area_under_curve([0, 10, 40], [0, 6, 6]) == pytest.approx(np.trapezoid([0, 6, 6], [0, 10, 40]) / 40)
    assert ours.area_under_curve([0, 10], [100, 300], bounds=(100, 300)) == pytest.approx(0.5)
    assert ours.area_under_curve([5], [7]) == 7
    assert ours.area_under_curve([0, 10, 20], [0, 10, 0], until=15) == pytest.approx((50 + 37.5) / 15)
    assert ours.area_under_curve([0, 10], [3, 3], until=99) == 3


def test_one_seed_has_an_unbounded_interval() -> None:
    interval = ours.interval_of([3.0])
    assert (interval.estimate, interval.low, interval.high, interval.n) == (3.0, -math.inf, math.inf, 1)
    assert ours.difference([3.0], [1.0, 2.0]).low == -math.inf
    chance = shares.probability_of_improvement([3.0], [1.0])
    assert (chance.estimate, chance.low, chance.high) == (1.0, 0.0, 1.0)


@given(scores, scores)
def test_probability_of_improvement_is_antisymmetric(a: list[float], b: list[float]) -> None:
    there, back = shares.improvement([np.array(a)], [np.array(b)]), shares.improvement([np.array(b)], [np.array(a)])
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
        (lambda: ours.interval_of([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: ours.interval_of([1.0], level=0), "between 0 and 1"),
        (lambda: ours.difference({"a": [1.0]}, {"b": [1.0]}), "different tasks"),
        (lambda: shares.wilson(3, 2), "3 successes in 2 trials"),
        (lambda: shares.wilson(0, 0), "at least one trial"),
        (lambda: shares.share_of([0.5, 1.2]), "between 0 and 1, and there is 1.2"),
        (lambda: ours.area_under_curve([0, 1], [0]), r"\[2\] and \[1\]"),
        (lambda: ours.area_under_curve([0, 1], [0, math.inf]), "not finite"),
        (lambda: ours.area_under_curve([1, 0], [0, 1]), "not decrease"),
    ],
)
def test_bad_input_is_one_sentence(call, words: str) -> None:
    with pytest.raises(RheostatError, match=words):
        call()
