"""Is A better than B? One rule for every table and study, declared before anything is run.

Seeds are matched: A and B are run with the same seeds, and the numbers that count are the differences ``d = A - B`` by seed. They are
looked at after 8, 12, 16 and 24 seeds, in the order of the seeds and never in between, each time at the same two-sided level of .0172
(Pocock 1977: together about .05 for normal differences). The first look that decides is the verdict:

supported               the test rejects "no better", and d is above 0
refuted                 the test rejects in the other direction
no relevant difference  Student's interval at that level lies inside the margin that was declared before; it overrides the other two,
                        because a difference that is there but too small to matter supports nothing
undecided               neither, or fewer than 8 seeds: a pilot shows estimates and decides nothing

The test is the exact sign-flip test for 8 and 12 seeds and Student's t test for 16 and 24. Where the differences are skewed (sample
skewness beyond 1), Hall's (1992) skew-corrected t test must reject too. Two other questions are asked of the same differences:

no worse                supported when the interval's lower bound lies above minus the margin, refuted when its upper bound lies below it
alike                   supported when the interval lies inside the margin, refuted when it lies wholly outside

Error rates, power and coverage of all this are simulated by ``python -m studies.rule_check``. They hold for symmetric differences. Where a
method fails occasionally or its results are skewed, false verdicts are more frequent: such differences are flagged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rheostat.analysis.shares import wilson
from rheostat.analysis.statistics import Array, Interval, as_strata, interval_of, iqm, mean, t_bounds
from rheostat.errors import RheostatError

Outcome = Literal["supported", "refuted", "no relevant difference", "undecided", "not testable here"]
OUTCOMES: tuple[Outcome, ...] = ("supported", "refuted", "no relevant difference", "undecided", "not testable here")
Question = Literal["better", "no worse", "alike"]
SKEWED = 1.0
"""Sample skewness from which differences count as skewed."""
FAR = 5.0
"""Robust deviations (1.4826 MAD) from the median from which a seed counts as far from the others."""
BLOCK = 2_000
"""Rows of differences whose signs are flipped at a time, which bounds memory."""


@dataclass(frozen=True)
class Rule:
    """The seeds of the looks, and their level."""

    looks: tuple[int, ...] = (8, 12, 16, 24)
    """Numbers of matched seeds."""
    alpha: float = 0.0172
    """Two-sided level of every look."""
    overall: float = 0.05
    """Level of all looks together for normal differences."""
    flips: int = 12
    """Up to so many seeds signs are flipped; beyond, it is Student's t test."""
    skew: bool = True
    """Whether skewed differences must pass the skew-corrected test too."""

    @property
    def level(self) -> float:
        """Confidence of the intervals."""
        return 1 - self.alpha

    def next_look(self, seeds: int) -> int | None:
        """The first look with more seeds; None after the last."""
        return next((look for look in self.looks if look > seeds), None)


RULE = Rule()


def at_once(n: int) -> Rule:
    """One look at ``n`` units at .05, for what is computed in one piece."""
    return Rule(looks=(n,), alpha=0.05)


@dataclass(frozen=True)
class Verdict:
    """The verdict of matched seeds."""

    outcome: Outcome
    difference: Interval
    """Mean of A minus B over all seeds that are there, at the level of a look."""
    iqm: Interval
    """Interquartile mean of the differences, at the same level."""
    probability: Interval
    """Share of seeds for which A is above B, ties counting half."""
    p_value: float
    """Two-sided, of the look that decided, else of the last one reached; of a pilot 1."""
    look: int | None
    """Seeds of that look; None for a pilot."""
    next_look: int | None
    """Seeds of the next look of an undecided comparison; None when it is decided, or every look is used."""
    flags: tuple[str, ...] = ()
    """Why the rule's error rates may not hold."""

    @property
    def seeds(self) -> int:
        """Number of matched seeds."""
        return self.difference.n

    def __str__(self) -> str:
        if self.look is None:
            return f"pilot of {self.seeds} seed{'s' if self.seeds != 1 else ''}, decides nothing; the first look is at {self.next_look}"
        if self.outcome != "undecided":
            return f"{self.outcome} at {self.look} seeds"
        return "undecided; every look is used" if self.next_look is None else f"undecided; the next look is at {self.next_look} seeds"


def judge(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    question: Question = "better",
    by: float = 0.0,
    margin: float | None = None,
    rule: Rule = RULE,
) -> Verdict:
    """Judge from matched seeds, taken in their order.

    Args:
        a, b: ``{seed: score}`` of the same seeds; larger is better.
        question: "A is better than B", "A is no worse than B", "A and B are alike".
        by: least difference for "better".
        margin: the difference below which nothing matters, declared before; needed unless the question is "better".
        rule: looks and level.

    Raises:
        RheostatError: different seeds, no seed, a score that is not finite, or a margin that is missing or not positive. Too few seeds are
            no error: they are a pilot.
    """
    if set(a) != set(b):
        odd = sorted(set(a) ^ set(b))
        raise RheostatError(f"Matched seeds must be the same on both sides; only one side has {', '.join(map(str, odd))}.")
    if margin is not None and not margin > 0:
        raise RheostatError(f"The margin is {margin:g}: it must be above 0, the difference below which nothing matters.")
    if margin is None and question != "better":
        raise RheostatError(f"'{question}' needs a margin: say before the data exist which difference does not matter.")
    seeds = sorted(a)
    gaps = as_strata([a[seed] for seed in seeds], "a")[0] - as_strata([b[seed] for seed in seeds], "b")[0]
    found = decisions(gaps[None], question=question, by=by, margin=margin, rule=rule)
    outcome, n = OUTCOMES[int(found.outcome[0])], len(seeds)
    look = int(found.look[0]) or None
    following = None if outcome != "undecided" else rule.next_look(0 if look is None else look)
    return Verdict(
        outcome,
        interval_of(gaps, mean, level=rule.level),
        interval_of(gaps, iqm, level=rule.level),
        wilson(float((np.sign(gaps) + 1).sum() / 2), n, level=rule.level),
        float(found.p_value[0]),
        look,
        following,
        flags_of(gaps) if look is not None else (),
    )


# --- the rule, for many series of differences at once ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decisions:
    """The outcomes of ``[trials]`` series."""

    outcome: NDArray[np.int64]
    """Index into :data:`OUTCOMES`."""
    look: NDArray[np.int64]
    """Seeds of the look that decided, else of the last one reached; 0 for none."""
    p_value: Array


def decisions(
    differences: Array, *, question: Question = "better", by: float = 0.0, margin: float | None = None, rule: Rule = RULE
) -> Decisions:
    """Apply the rule to differences ``[trials, seeds]``, look by look.

    Args:
        differences: A minus B, seeds in order.
        question, by, margin, rule: see :func:`judge`.
    """
    trials, seeds = differences.shape
    outcome = np.full(trials, OUTCOMES.index("undecided"))
    look, p_value = np.zeros(trials, dtype=np.int64), np.ones(trials)
    waiting = np.arange(trials)
    for n in rule.looks:
        if n > seeds or not len(waiting):
            break
        found, p = _look(differences[waiting, :n], question, by, margin, rule)
        outcome[waiting], look[waiting], p_value[waiting] = found, n, p
        waiting = waiting[found == OUTCOMES.index("undecided")]
    return Decisions(outcome, look, p_value)


def _look(d: Array, question: Question, by: float, margin: float | None, rule: Rule) -> tuple[NDArray[np.int64], Array]:
    """Outcomes and p-values of one look."""
    centre, low, high = t_bounds(d, rule.level)
    found = np.full(len(d), OUTCOMES.index("undecided"))
    if question == "better":
        p = p_values(d - by, rule)
        significant = p <= rule.alpha
        found[significant & (centre > by)] = OUTCOMES.index("supported")
        found[significant & (centre < by)] = OUTCOMES.index("refuted")
        if margin is not None and by == 0:
            found[(low > -margin) & (high < margin)] = OUTCOMES.index("no relevant difference")
        return found, p
    assert margin is not None
    if question == "no worse":
        found[low > -margin] = OUTCOMES.index("supported")
        found[high < -margin] = OUTCOMES.index("refuted")
        return found, student_p(d + margin)
    found[(low > -margin) & (high < margin)] = OUTCOMES.index("supported")
    found[(low > margin) | (high < -margin)] = OUTCOMES.index("refuted")
    return found, np.maximum(student_p(d + margin), student_p(d - margin))


def p_values(differences: Array, rule: Rule = RULE) -> Array:
    """Two-sided p-values of "the mean is 0" ``[trials]`` for ``[trials, n]``."""
    n = differences.shape[-1]
    p = sign_flip_p(differences) if n <= rule.flips else student_p(differences)
    if not rule.skew or n < 3:
        return p
    skewed = np.abs(skewness(differences)) > SKEWED
    return np.where(skewed, np.maximum(p, student_p(differences, corrected=True)), p)


def sign_flip_p(differences: Array) -> Array:
    """Exact two-sided p-values of "differences are symmetric about 0", by their mean, ``[trials]`` for ``[trials, n]``."""
    observed = np.abs(differences.sum(-1)) * (1 - 1e-12) - 1e-300
    parts = [differences[start : start + BLOCK] for start in range(0, len(differences), BLOCK)]
    signs = _signs(differences.shape[-1])
    return np.concatenate(
        [(np.abs(part @ signs) >= observed[i * BLOCK : i * BLOCK + len(part), None]).mean(-1) for i, part in enumerate(parts)]
    )


@cache
def _signs(n: int) -> Array:
    """All choices of signs ``[n, 2^(n - 1)]``, the first kept: flipping all of them changes no absolute sum."""
    bits = (np.arange(2 ** (n - 1))[None, :] >> np.arange(n)[:, None]) & 1
    return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)


def student_p(differences: Array, *, corrected: bool = False) -> Array:
    """Two-sided p-values of Student's t test ``[trials]``; ``corrected`` for skewness by Hall's (1992) cubic transformation of t."""
    from scipy.stats import t

    n = differences.shape[-1]
    if n < 2:
        return np.ones(len(differences))
    centre, spread = differences.mean(-1), differences.std(-1, ddof=1)
    certain = spread <= 1e-12 * np.abs(differences).max(-1)
    ratio = centre / np.where(certain, 1.0, spread)
    if corrected:
        shape = np.where(certain, 0.0, _third_moment(differences))
        ratio = ratio + shape * ratio**2 / 3 + shape**2 * ratio**3 / 27 + shape / (6 * n)
    p = 2 * t.sf(np.abs(ratio) * math.sqrt(n), n - 1)
    return np.where(certain, np.where(centre == 0, 1.0, 0.0), p)


def _third_moment(differences: Array) -> Array:
    """Mean cubed deviation in units of the standard deviation, ``[trials]``; 0 without spread."""
    away = differences - differences.mean(-1, keepdims=True)
    spread = np.sqrt(np.square(away).mean(-1))
    scaled: Array = (away / np.where(spread > 0, spread, np.inf)[..., None]) ** 3
    return np.asarray(scaled.mean(-1), dtype=np.float64)


def skewness(differences: Array) -> Array:
    """Sample skewness G1 (Joanes and Gill 1998) of ``[..., seeds]``: ``[...]``, 0 without spread; at least three seeds."""
    n = differences.shape[-1]
    return math.sqrt(n * (n - 1)) / (n - 2) * _third_moment(differences)


def far_from_others(differences: Array) -> NDArray[np.bool_]:
    """Whether some seed lies far from the others, as runs that fail do, ``[trials]``."""
    away = np.abs(differences - np.median(differences, axis=-1, keepdims=True))
    return away.max(-1) > FAR * 1.4826 * np.median(away, axis=-1)


def flags_of(differences: Array) -> tuple[str, ...]:
    """Warnings where false verdicts are more frequent than the rule's error rates, for ``[seeds]``."""
    found = []
    shape = float(skewness(differences[None])[0])
    if abs(shape) > SKEWED:
        found.append(f"the differences are skewed (skewness {shape:.2g})")
    if bool(far_from_others(differences[None])[0]):
        found.append("a seed lies far from the others, as if a run had failed")
    return tuple(found)


# --- several claims ----------------------------------------------------------------------------------------------------------------------


def over_looks(p_value: float, level: float = RULE.level) -> float:
    """The p-value of a look at a confidence as one of all looks together: .05 where the look's is just significant."""
    return min(1.0, p_value * RULE.overall / (1 - level))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's (1979) adjusted p-values of a family."""
    adjusted, worst = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda one: p_values[one])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = worst
    return adjusted
