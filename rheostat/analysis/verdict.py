"""Is A better than B? One rule for every table and study.

The claim "A is better than B by more than ``margin``" is

- **held** when the interval of the difference lies above the margin *and* an exact permutation test rejects "no better" at the same level,
- **not held** when the same is true in the other direction,
- **undecided** otherwise.

Two conditions, because each alone is too easy: the percentile bootstrap of a few seeds is too narrow (it collapses when they are
separated), and the test alone says nothing about size. The permutation test ranks runs (its statistic is the probability of improvement),
so four seeds per side are the fewest that can decide at 95 % (2 / C(8, 4) = 0.029; three give 2 / C(6, 3) = 0.1); matched seeds flip
signs and need six (2 / 2^6 = 0.031).

How many more seeds: if the true difference is d and the standard deviations are s_A and s_B, a two-sided test at 1 - level finds it with
80 % power from n = (z_{(1 + level) / 2} + z_{0.8})^2 (s_A^2 + s_B^2) / (d - margin)^2 seeds per side (for matched seeds: with the
variance of the differences instead of the sum), and never from fewer than the least number above. The estimates stand in for d, s_A and
s_B: a rough guide, not a promise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rheostat.analysis.statistics import (
    RESAMPLES,
    Array,
    Interval,
    Scores,
    Statistic,
    as_strata,
    bootstrap,
    difference,
    improvement,
    iqm,
    mean,
    probability_of_improvement,
)
from rheostat.errors import RheostatError

Outcome = Literal["held", "not held", "undecided"]
EXACT = 20_000
"""Permutations that are enumerated; beyond, that many are drawn."""
POWER = 0.8
MOST_SEEDS = 1000
"""Where an estimate of the seeds needed stops being useful."""


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about "A is better than B"."""

    outcome: Outcome
    difference: Interval
    """A minus B."""
    probability: Interval
    """That a run of A beats a run of B (matched: of the same seed)."""
    p_value: float
    """Two-sided, of the permutation test."""
    seeds: tuple[int, int]
    """Seeds of A and of B (per task: the fewest)."""
    more_seeds: int | None
    """Seeds per side that would probably decide it; 0 when decided, None when more seeds would probably not."""

    def __str__(self) -> str:
        if self.outcome != "undecided":
            return self.outcome
        if self.more_seeds is None:
            return "undecided; more seeds would probably not decide it"
        return f"undecided; {self.more_seeds} more seed{'s' if self.more_seeds > 1 else ''} per method would probably decide it"


def decide(
    a: Scores,
    b: Scores,
    *,
    generator: np.random.Generator,
    margin: float = 0.0,
    level: float = 0.95,
    statistic: Statistic = iqm,
    resamples: int = RESAMPLES,
) -> Verdict:
    """Judge "A is better than B by more than ``margin``" from independent seeds.

    Args:
        a, b: ``[seeds]`` or ``{task: [seeds]}``; larger is better.
        generator: source of resamples and permutations.
        margin: least difference that counts; negative for "not worse by more than".
        level: confidence in (0, 1).
        statistic: what is compared.
        resamples: bootstrap samples.

    Raises:
        RheostatError: scores that are empty, not finite or of different tasks. Too few seeds are no error: they are undecided.
    """
    gap = difference(a, b, statistic, generator=generator, level=level, resamples=resamples)
    probability = probability_of_improvement(a, b, generator=generator, level=level, resamples=resamples)
    x, y = as_strata(a), as_strata(b)
    x_shifted = [values - margin for values in x]
    p_value, direction = _permutation_test(x_shifted, y, generator)
    seeds = (min(map(len, x)), min(map(len, y)))
    outcome = _outcome(gap, margin, p_value, direction, level)
    more: int | None = 0
    if outcome == "undecided":
        spread = sum(_mean_variance(strata) for strata in (x, y))
        more = _more_seeds(gap.estimate - margin, spread, min(seeds), least_seeds(level, len(x)), level)
    return Verdict(outcome, gap, probability, p_value, seeds, more)


def decide_paired(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    generator: np.random.Generator,
    margin: float = 0.0,
    level: float = 0.95,
    statistic: Statistic = mean,
    resamples: int = RESAMPLES,
) -> Verdict:
    """The same from matched seeds: what a seed shares between the arms (data, initialisation) cancels.

    Args:
        a, b: ``{seed: score}`` of the same seeds; larger is better.
        generator, margin, level, statistic, resamples: see :func:`decide`.

    Raises:
        RheostatError: different seeds, no seed, or a score that is not finite.
    """
    if set(a) != set(b):
        odd = sorted(set(a) ^ set(b))
        raise RheostatError(f"Matched seeds must be the same on both sides; only one side has {', '.join(map(str, odd))}.")
    seeds = sorted(a)
    differences = as_strata([a[seed] for seed in seeds], "a")[0] - as_strata([b[seed] for seed in seeds], "b")[0]
    gap = bootstrap(differences, statistic, generator=generator, level=level, resamples=resamples)
    wins = (np.sign(differences) + 1) / 2
    probability = bootstrap(wins, mean, generator=generator, level=level, resamples=resamples)
    p_value, direction = _sign_flip_test(differences - margin, generator)
    outcome = _outcome(gap, margin, p_value, direction, level)
    more: int | None = 0
    n = len(seeds)
    if outcome == "undecided":
        spread = float(differences.var(ddof=1)) if n > 1 else math.nan
        more = _more_seeds(gap.estimate - margin, spread, n, least_seeds(level, paired=True), level)
    return Verdict(outcome, gap, probability, p_value, (n, n), more)


def least_seeds(level: float = 0.95, tasks: int = 1, *, paired: bool = False) -> int:
    """Fewest seeds per side with which complete separation can be told from chance at ``level`` (4 at 95 %, 6 when paired)."""
    n = 1
    while 2 / (2**n if paired else math.comb(2 * n, n) ** tasks) > 1 - level:
        n += 1
    return n


def _outcome(gap: Interval, margin: float, p_value: float, direction: float, level: float) -> Outcome:
    if p_value <= 1 - level:
        if gap.low > margin and direction > 0:
            return "held"
        if gap.high < margin and direction < 0:
            return "not held"
    return "undecided"


def _more_seeds(effect: float, spread: float, seeds: int, least: int, level: float) -> int | None:
    """See the module docstring; at least 1, because with the present ones it is undecided."""
    from scipy.stats import norm

    if not math.isfinite(spread):  # one seed: nothing is known of the spread
        return max(1, least - seeds)
    if effect == 0:
        return None if spread else max(1, least - seeds) if seeds < least else None
    z = float(norm.ppf((1 + level) / 2) + norm.ppf(POWER))
    needed = max(least, math.ceil(z * z * spread / effect**2))
    return None if needed > MOST_SEEDS else max(1, needed - seeds)


def _mean_variance(strata: Sequence[Array]) -> float:
    """Variance of one seed's mean over tasks; NaN where a task has a single seed."""
    if min(map(len, strata)) < 2:
        return math.nan
    return float(np.sum([values.var(ddof=1) for values in strata]) / len(strata) ** 2)


def _permutation_test(x: Sequence[Array], y: Sequence[Array], generator: np.random.Generator) -> tuple[float, float]:
    """Two-sided p-value of "runs of X and of Y are exchangeable", by the probability of improvement, and its direction (-1, 0, 1).

    All relabellings are enumerated for one task while there are at most ``EXACT``; otherwise half as many are drawn, and the observed one
    is added.
    """
    observed = float(improvement(x, y)) - 0.5
    n, m = len(x[0]), len(y[0])
    if len(x) == 1 and math.comb(n + m, n) <= EXACT:
        pooled = np.concatenate([x[0], y[0]])
        chosen = np.array(list(itertools.combinations(range(n + m), n)))
        rest = np.ones((len(chosen), n + m), dtype=bool)
        np.put_along_axis(rest, chosen, False, axis=1)
        left, right = [pooled[chosen]], [np.broadcast_to(pooled, rest.shape)[rest].reshape(len(chosen), m)]
        extra = 0
    else:
        left, right = [], []
        for a, b in zip(x, y, strict=True):
            shuffled = generator.permuted(np.broadcast_to(np.concatenate([a, b]), (EXACT // 2, len(a) + len(b))), axis=1)
            left.append(shuffled[:, : len(a)])
            right.append(shuffled[:, len(a) :])
        extra = 1
    shifts = np.abs(improvement(left, right) - 0.5)
    count = int((shifts >= abs(observed) - 1e-12).sum())
    return (count + extra) / (len(shifts) + extra), float(np.sign(observed))


def _sign_flip_test(differences: Array, generator: np.random.Generator) -> tuple[float, float]:
    """Two-sided p-value of "differences are symmetric about 0", by their mean, and its direction (-1, 0, 1)."""
    n = len(differences)
    if 2**n <= EXACT:
        signs, extra = np.array(list(itertools.product((-1.0, 1.0), repeat=n))), 0
    else:
        signs, extra = generator.choice((-1.0, 1.0), size=(EXACT, n)), 1
    means = np.abs(signs @ differences) / n
    observed = float(differences.mean())
    count = int((means >= abs(observed) * (1 - 1e-12) - 1e-300).sum())
    return (count + extra) / (len(signs) + extra), float(np.sign(observed))
