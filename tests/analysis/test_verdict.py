"""The rule for "is A better than B?": when it decides, how often it errs, and what it asks for when it cannot."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from rheostat.analysis.statistics import iqm, mean
from rheostat.analysis.verdict import _permutation_test, _sign_flip_test, decide, decide_paired, least_seeds
from rheostat.errors import RheostatError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_clear_cases() -> None:
    better, worse = [10.0, 11, 12, 13, 14], [1.0, 2, 3, 4, 5]
    assert decide(better, worse, generator=rng()).outcome == "held"
    assert decide(worse, better, generator=rng()).outcome == "not held"
    assert decide(better, worse, generator=rng()).more_seeds == 0
    assert decide(better, better, generator=rng()).outcome == "undecided"


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_too_few_seeds_are_undecided_however_large_the_difference(seeds: int) -> None:
    verdict = decide([1000.0 + i for i in range(seeds)], [float(i) for i in range(seeds)], generator=rng())
    assert verdict.outcome == "undecided"
    assert verdict.more_seeds == 4 - seeds
    assert str(verdict) == f"undecided; {4 - seeds} more seed{'s' if seeds < 3 else ''} per method would probably decide it"


def test_undecided_at_two_seeds_is_decided_at_more() -> None:
    a, b = rng(1).normal(10, 1, 12), rng(2).normal(6, 1, 12)
    few = decide(a[:2], b[:2], generator=rng())
    assert few.outcome == "undecided"
    assert few.more_seeds is not None
    enough = 2 + few.more_seeds
    assert decide(a[:enough], b[:enough], generator=rng()).outcome == "held"


def test_least_seeds_are_those_of_the_exact_test() -> None:
    assert least_seeds(0.95) == 4
    assert least_seeds(0.99) == 5
    assert least_seeds(0.95, paired=True) == 6
    for n in range(2, 7):
        separated = scipy.stats.mannwhitneyu(range(n, 2 * n), range(n), method="exact").pvalue
        assert (separated <= 0.05) == (n >= least_seeds(0.95))
        flipped = scipy.stats.wilcoxon(range(1, n + 1), method="exact").pvalue
        assert (flipped <= 0.05) == (n >= least_seeds(0.95, paired=True))


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 3), (6, 7)])
def test_permutation_test_is_the_exact_mann_whitney_test(n: int, m: int) -> None:
    a, b = rng(n).normal(0.8, 1, n), rng(m + 50).normal(0, 1, m)
    p_value, direction = _permutation_test([a], [b], rng())
    theirs = scipy.stats.mannwhitneyu(a, b, method="exact")
    assert p_value == pytest.approx(theirs.pvalue)
    assert direction == np.sign(theirs.statistic - n * m / 2)


def test_drawn_permutations_agree_with_enumerated_ones() -> None:
    a, b = rng(8).normal(0.9, 1, 12), rng(9).normal(0, 1, 12)  # 2.7 million relabellings: drawn
    drawn, _ = _permutation_test([a], [b], rng())
    assert drawn == pytest.approx(scipy.stats.mannwhitneyu(a, b, method="exact").pvalue, abs=0.01)


def test_sign_flips_agree_with_scipy() -> None:
    values = rng(3).normal(0.5, 1, 9)
    theirs = scipy.stats.permutation_test((values,), np.mean, permutation_type="samples", alternative="two-sided", n_resamples=np.inf)
    assert _sign_flip_test(values, rng())[0] == pytest.approx(theirs.pvalue)
    many = rng(4).normal(0.4, 1, 20)  # a million flips: drawn
    p_value = np.mean([_sign_flip_test(many, rng(seed))[0] for seed in range(3)])
    assert p_value == pytest.approx(scipy.stats.ttest_1samp(many, 0).pvalue, abs=0.02)


def test_ties_are_half_wins() -> None:
    verdict = decide([1.0, 1, 1, 1], [1.0, 1, 1, 1], generator=rng())
    assert verdict.probability.estimate == 0.5
    assert verdict.p_value == 1.0
    assert verdict.more_seeds is None
    assert "would probably not" in str(verdict)


@pytest.mark.parametrize("n", [4, 5, 8])
def test_false_verdicts_are_as_rare_as_promised(n: int) -> None:
    """Equal methods: at most 5 % of verdicts may be anything but undecided (binomial slack of three deviations)."""
    generator = rng(n)
    trials = 300
    wrong = sum(
        decide(generator.normal(size=n), generator.normal(size=n), generator=generator, resamples=400).outcome != "undecided"
        for _ in range(trials)
    )
    assert wrong <= trials * 0.05 + 3 * math.sqrt(trials * 0.05 * 0.95)


def test_the_estimate_of_seeds_has_about_the_promised_power() -> None:
    """With the true effect and spread, n from the formula decides in roughly 80 % of repetitions (less for the stricter double rule)."""
    z = scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)
    n = math.ceil(z**2 * 2 / 1.2**2)
    generator = rng(5)
    hits = sum(
        decide(generator.normal(1.2, 1, n), generator.normal(0, 1, n), generator=generator, statistic=mean, resamples=300).outcome == "held"
        for _ in range(60)
    )
    assert 0.6 <= hits / 60 <= 0.95


def test_margin_shifts_the_claim() -> None:
    a, b = [10.0, 11, 12, 13, 14, 15], [7.0, 8, 9, 10, 11, 12]
    assert decide(a, b, generator=rng(), margin=-2).outcome == "held"
    assert decide(a, b, generator=rng(), margin=8).outcome == "not held"


def test_pairing_decides_what_independent_seeds_cannot() -> None:
    base = rng(6).normal(0, 10, 8)
    a = {seed: value + 1 + 0.1 * seed for seed, value in enumerate(base)}
    b = dict(enumerate(base))
    assert decide(list(a.values()), list(b.values()), generator=rng()).outcome == "undecided"
    paired = decide_paired(a, b, generator=rng())
    assert paired.outcome == "held"
    assert paired.probability.estimate == 1.0
    assert decide_paired(b, a, generator=rng()).outcome == "not held"
    few = decide_paired({0: 2.0, 1: 3.0}, {0: 1.0, 1: 1.5}, generator=rng())
    assert (few.outcome, few.more_seeds) == ("undecided", 4)
    assert decide_paired({0: 2.0}, {0: 1.0}, generator=rng()).more_seeds == 5


def test_several_tasks_decide_together() -> None:
    a = {"x": [1.0, 2, 3], "y": [1.0, 2, 3], "z": [1.0, 2, 3]}
    b = {task: [value - 5 for value in values] for task, values in a.items()}
    assert decide({"x": a["x"]}, {"x": b["x"]}, generator=rng()).outcome == "undecided"
    assert decide(a, b, generator=rng(), statistic=mean).outcome == "held"


def test_level_and_statistic_are_honoured() -> None:
    a, b = [5.0, 6, 7, 8], [1.0, 2, 3, 4]
    assert decide(a, b, generator=rng(), level=0.99).outcome == "undecided"
    assert decide(a, b, generator=rng(), level=0.95).difference.level == 0.95
    outlier = [1.0, 1, 1, 1, 1000]
    assert decide(outlier, b, generator=rng(), statistic=mean).difference.estimate > 100
    assert abs(decide(outlier, b, generator=rng(), statistic=iqm).difference.estimate) < 2


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(RheostatError, match="only one side has 1, 2"):
        decide_paired({0: 1.0, 1: 1.0}, {0: 1.0, 2: 1.0}, generator=rng())
    for a, b in itertools.permutations(([1.0, math.nan], [1.0, 2.0])):
        with pytest.raises(RheostatError, match="holds nan"):
            decide(a, b, generator=rng())
    with pytest.raises(RheostatError, match="holds inf"):
        decide_paired({0: math.inf}, {0: 1.0}, generator=rng())
