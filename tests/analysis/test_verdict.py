"""The rule: when it looks, what it says, how often it errs, and what it refuses."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rheostat.analysis.verdict import (
    OUTCOMES,
    RULE,
    Rule,
    at_once,
    decisions,
    far_from_others,
    flags_of,
    holm,
    judge,
    over_looks,
    p_values,
    sign_flip_p,
    skewness,
    student_p,
)
from rheostat.errors import RheostatError

TRIALS = 4_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def seeds(values: object) -> dict[int, float]:
    return dict(enumerate(np.asarray(values, dtype=float).tolist()))


def zeros(n: int) -> dict[int, float]:
    return dict.fromkeys(range(n), 0.0)


def rate(outcome: str, d: np.ndarray, **options: object) -> float:
    return float((decisions(d, **options).outcome == OUTCOMES.index(outcome)).mean())  # type: ignore[arg-type]


CLEAR = [1.0, 1.2, 0.9, 1.1, 0.8, 1.3, 1.0, 0.7]
EVEN = [1.0, -1.0, 0.5, -0.5, 0.7, -0.7, 0.2, -0.2]


def test_clear_cases() -> None:
    found = judge(seeds(CLEAR), zeros(8))
    assert (found.outcome, found.look, found.next_look, found.seeds) == ("supported", 8, None, 8)
    assert str(found) == "supported at 8 seeds" and found.difference.estimate == pytest.approx(1.0)
    assert judge(zeros(8), seeds(CLEAR)).outcome == "refuted"
    assert found.probability.estimate == 1.0 and found.probability.low < 1.0  # eight of eight are no certainty
    assert found.iqm.low < found.iqm.estimate < found.iqm.high


@pytest.mark.parametrize("n", range(1, 8))
def test_a_pilot_decides_nothing_however_large_the_difference(n: int) -> None:
    found = judge(seeds(1000.0 + np.arange(n)), zeros(n), margin=5000.0)
    assert (found.outcome, found.look, found.next_look, found.p_value) == ("undecided", None, 8, 1.0)
    assert str(found) == f"pilot of {n} seed{'s' if n > 1 else ''}, decides nothing; the first look is at 8"
    assert math.isinf(found.difference.low) == (n == 1)


@pytest.mark.parametrize(("n", "look", "following"), [(8, 8, 12), (11, 8, 12), (12, 12, 16), (23, 16, 24), (24, 24, None), (40, 24, None)])
def test_looks_are_taken_in_order_and_never_in_between(n: int, look: int, following: int | None) -> None:
    found = judge(seeds((EVEN * 5)[:n]), zeros(n))
    assert (found.outcome, found.look, found.next_look) == ("undecided", look, following)
    assert str(found) == ("undecided; every look is used" if following is None else f"undecided; the next look is at {following} seeds")


def test_the_first_look_that_decides_stands() -> None:
    later = [*CLEAR, *([-3.0] * 16)]
    found = judge(seeds(later), zeros(24))
    assert (found.outcome, found.look) == ("supported", 8) and found.difference.estimate < 0
    rising = seeds(EVEN + [1.5, 2.0] * 8)
    assert judge(rising, zeros(24)).look == 16
    assert judge({seed: rising[seed] for seed in range(15)}, zeros(15)).look == 12


def test_margins() -> None:
    small = [0.10, 0.11, 0.09, 0.10, 0.12, 0.08, 0.10, 0.11]
    assert judge(seeds(small), zeros(8)).outcome == "supported"
    assert judge(seeds(small), zeros(8), margin=0.5).outcome == "no relevant difference"  # there, and too small to matter
    assert judge(seeds(small), zeros(8), margin=0.05).outcome == "supported"
    assert judge(seeds(CLEAR), zeros(8), by=0.5).outcome == "supported"
    assert judge(seeds(CLEAR), zeros(8), by=2.0).outcome == "refuted"
    assert judge(seeds(EVEN), zeros(8), margin=5.0).outcome == "no relevant difference"


def test_no_worse_and_alike() -> None:
    worse = [-x for x in CLEAR]
    assert judge(seeds(worse), zeros(8), question="no worse", margin=2.0).outcome == "supported"
    assert judge(seeds(worse), zeros(8), question="no worse", margin=0.1).outcome == "refuted"
    assert judge(seeds(worse), zeros(8), question="no worse", margin=1.0).outcome == "undecided"
    assert judge(seeds(EVEN), zeros(8), question="alike", margin=2.0).outcome == "supported"
    assert judge(seeds(CLEAR), zeros(8), question="alike", margin=0.1).outcome == "refuted"
    assert judge(seeds(CLEAR), zeros(8), question="alike", margin=1.0).outcome == "undecided"


def test_the_same_everywhere_is_no_difference() -> None:
    found = judge(zeros(8), zeros(8), margin=0.1)
    assert (found.outcome, found.p_value, found.probability.estimate) == ("no relevant difference", 1.0, 0.5)
    assert judge(zeros(24), zeros(24)).outcome == "undecided"
    assert judge(dict.fromkeys(range(16), 1.0), zeros(16), rule=Rule(looks=(16,))).outcome == "supported"


# --- tests ------------------------------------------------------------------------------------------------------------------------------


def test_sign_flips_agree_with_scipy() -> None:
    for n in (8, 12):
        values = rng(n).normal(0.5, 1, n)
        theirs = scipy.stats.permutation_test((values,), np.mean, permutation_type="samples", alternative="two-sided", n_resamples=np.inf)
        assert sign_flip_p(values[None])[0] == pytest.approx(theirs.pvalue)
    many = rng(1).normal(size=(5_000, 8))  # more rows than are flipped at a time
    np.testing.assert_array_equal(sign_flip_p(many)[-3:], sign_flip_p(many[-3:]))


def test_students_test_agrees_with_scipy() -> None:
    values = rng(3).normal(0.4, 1, (20, 16))
    np.testing.assert_allclose(student_p(values), scipy.stats.ttest_1samp(values, 0, axis=1).pvalue)
    np.testing.assert_allclose(skewness(values), scipy.stats.skew(values, axis=1, bias=False))


def test_which_test_is_used() -> None:
    symmetric = np.array([EVEN])
    assert p_values(symmetric)[0] == sign_flip_p(symmetric)[0]
    more = np.array([EVEN * 2])
    assert p_values(more)[0] == student_p(more)[0]
    skewed = rng(0).exponential(size=(1, 16)) ** 2
    assert abs(skewness(skewed)[0]) > 1
    assert p_values(skewed)[0] == max(student_p(skewed)[0], student_p(skewed, corrected=True)[0])
    assert p_values(skewed, Rule(skew=False))[0] == student_p(skewed)[0]


@given(st.lists(st.floats(-100, 100), min_size=8, max_size=24), st.floats(0.1, 10))
def test_verdicts_turn_with_the_sides_and_ignore_the_unit(values: list[float], scale: float) -> None:
    d = np.array([values])
    there, back, scaled = (int(decisions(x).outcome[0]) for x in (d, -d, d * 2**3))
    turned = {"supported": "refuted", "refuted": "supported"}
    assert OUTCOMES[back] == turned.get(OUTCOMES[there], OUTCOMES[there]) and scaled == there


# --- how often it errs (fixed seeds; slack of about three standard errors) ---------------------------------------------------------------


def test_false_verdicts_are_as_rare_as_promised() -> None:
    d = rng(11).normal(size=(TRIALS, 24))
    assert 0.03 <= 1 - rate("undecided", d) <= 0.055
    assert rate("supported", d) == pytest.approx(rate("refuted", d), abs=0.012)
    heavy = rng(12).standard_t(3, size=(TRIALS, 24))
    assert 1 - rate("undecided", heavy) <= 0.055


def test_skewed_differences_err_more_and_less_than_without_the_correction() -> None:
    d = rng(13).exponential(size=(TRIALS, 24)) - 1
    corrected, plain = 1 - rate("undecided", d), 1 - rate("undecided", d, rule=Rule(skew=False))
    assert corrected < plain - 0.015 and 0.05 < corrected < 0.1


def test_power() -> None:
    d = rng(14).normal(size=(TRIALS, 24))
    assert 0.45 <= rate("supported", d + 0.5) <= 0.58
    assert rate("supported", d + 1.0) >= 0.97
    assert decisions(d + 1.0).look.mean() < 15


def test_false_equivalence_and_false_no_worse_are_rare_at_the_margin() -> None:
    d = rng(15).normal(size=(TRIALS, 24))
    for margin in (0.75, 1.0):
        assert rate("no relevant difference", d + margin, margin=margin) <= 0.03
        assert rate("supported", d - margin, question="no worse", margin=margin) <= 0.035
        assert rate("supported", d + margin, question="alike", margin=margin) <= 0.03
    assert rate("no relevant difference", d, margin=1.0) >= 0.9
    assert rate("supported", d, question="no worse", margin=1.0) >= 0.95


def test_one_look_at_many() -> None:
    rule = at_once(40)
    d = rng(16).normal(size=(TRIALS, 40))
    assert 1 - rate("undecided", d, rule=rule) == pytest.approx(0.05, abs=0.011)
    assert judge(seeds(d[0] + 1), zeros(40), rule=rule).look == 40


# --- flags and families ------------------------------------------------------------------------------------------------------------------


def test_flags() -> None:
    assert flags_of(np.array(EVEN)) == ()
    failed = np.array([0.1, -0.2, 0.3, 0.0, -0.1, 0.2, 0.1, -9.0])
    assert far_from_others(failed[None])[0]
    found = flags_of(failed)
    assert len(found) == 2 and found[0].startswith("the differences are skewed (skewness -2.8)") and "as if a run had failed" in found[1]
    assert judge(seeds(failed), zeros(8)).flags == found
    assert judge(seeds(failed[-3:]), zeros(3)).flags == ()  # of a pilot nothing is said


def test_holm_is_statsmodels_definition() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {} and holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert over_looks(RULE.alpha) == pytest.approx(0.05) and over_looks(0.9) == 1.0
    assert over_looks(0.05, 0.95) == pytest.approx(0.05)


def test_the_family_errs_no_more_than_one_claim() -> None:
    """Five true nulls: an adjusted p-value is at most .05 in about .05 of families, not in .2."""
    d = rng(17).normal(size=(1_000, 5, 24))
    p = np.stack([decisions(d[:, claim]).p_value for claim in range(5)], axis=1)
    wrong = [min(holm({str(i): over_looks(float(x)) for i, x in enumerate(row)}).values()) <= 0.05 for row in p]
    single = [min(over_looks(float(x)) for x in row) <= 0.05 for row in p]
    assert np.mean(wrong) <= 0.07 < 0.15 <= np.mean(single)


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(RheostatError, match="only one side has 1, 2"):
        judge({0: 1.0, 1: 1.0}, {0: 1.0, 2: 1.0})
    for a, b in itertools.permutations(({0: 1.0, 1: math.nan}, {0: 1.0, 1: 2.0})):
        with pytest.raises(RheostatError, match="holds nan"):
            judge(a, b)
    with pytest.raises(RheostatError, match="at least one seed"):
        judge({}, {})
    with pytest.raises(RheostatError, match="margin is -1: it must be above 0"):
        judge(zeros(8), zeros(8), margin=-1.0)
    for question in ("no worse", "alike"):
        with pytest.raises(RheostatError, match=f"'{question}' needs a margin"):
            judge(zeros(8), zeros(8), question=question)  # type: ignore[arg-type]
