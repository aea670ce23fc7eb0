"""Shares over seeds and prompts: probability of improvement, accuracies, profiles, each with a score interval within 0 and 1.

Score intervals (Wilson 1927; for the Mann-Whitney share Newcombe 2006, method 5) do not collapse where all seeds agree, which is where
bootstrap and Wald intervals of few seeds are far too short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rheostat.analysis.statistics import Array, Interval, Scores, as_strata, require_same_tasks, student
from rheostat.errors import RheostatError


@dataclass(frozen=True)
class Profile:
    """Share of runs that score above each threshold, averaged over tasks."""

    thresholds: Array
    estimate: Array
    low: Array
    high: Array
    level: float
    n: int


def improvement(x: Sequence[Array], y: Sequence[Array]) -> Array:
    """Probability that a run of X beats a run of Y, ``P(X > Y) + P(X = Y) / 2``, averaged over tasks.

    Args:
        x: one ``[..., seeds]`` array per task.
        y: the same tasks; the number of seeds may differ.

    Returns:
        ``[...]``, in [0, 1].
    """
    shares = []
    for left, right in zip(x, y, strict=True):
        signs = np.sign(left[..., :, None] - right[..., None, :])
        shares.append((signs.mean((-1, -2)) + 1) / 2)
    return np.mean(shares, axis=0)


def probability_of_improvement(a: Scores, b: Scores, *, level: float = 0.95) -> Interval:
    """How probable it is that a run of A beats a run of B, averaged over tasks, from independent seeds.

    The interval is Newcombe's score interval for the Mann-Whitney share (2006, method 5) within each task, combined over tasks as a sum of
    independent parts (MOVER). It does not collapse where the two sides are completely separated.

    Raises:
        RheostatError: see :func:`as_strata`; different tasks.
    """
    x, y = as_strata(a, "a"), as_strata(b, "b")
    require_same_tasks(a, b)
    n = min(sum(map(len, x)), sum(map(len, y)))
    parts = [_mann_whitney(float(improvement([u], [v])), len(u), len(v), level) for u, v in zip(x, y, strict=True)]
    estimate = float(np.mean([share for share, _, _ in parts]))
    low, high = (math.sqrt(sum((part[0] - part[side]) ** 2 for part in parts)) / len(parts) for side in (1, 2))
    return Interval(estimate, max(0.0, estimate - low), min(1.0, estimate + high), level, n)


def _mann_whitney(share: float, n: int, m: int, level: float) -> tuple[float, float, float]:
    """Newcombe's method 5: the shares t with |share - t| <= z * sqrt(V(t)), found by bisection."""
    if min(n, m) < 2:
        student(1, level)  # checks the level
        return share, 0.0, 1.0
    z, extra = student(math.inf, level), (n + m) / 2 - 1

    def outside(t: float) -> bool:
        variance = t * (1 - t) * (1 + extra * ((1 - t) / (2 - t) + t / (1 + t))) / (n * m)
        return abs(share - t) > z * math.sqrt(variance)

    ends = []
    for end in (0.0, 1.0):
        far, near = end, share
        for _ in range(50):
            middle = (far + near) / 2
            far, near = (middle, near) if outside(middle) else (far, middle)
        ends.append(near)
    return share, ends[0], ends[1]


def performance_profile(scores: Scores, thresholds: ArrayLike, *, level: float = 0.95) -> Profile:
    """Share of runs with a score above each threshold, averaged over tasks, with a pointwise score band.

    Args:
        scores: ``[seeds]`` or ``{task: [seeds]}``, on one scale.
        thresholds: ``[thresholds]``.
        level: of the band.
    """
    strata = as_strata(scores)
    taus = np.asarray(thresholds, dtype=np.float64)
    shares = np.array([(task[:, None] > taus).mean(0) for task in strata])
    sizes = np.array([len(task) for task in strata])[:, None]
    estimate, z = shares.mean(0), student(math.inf, level)
    variance = (shares * (1 - shares) / sizes).sum(0) / len(strata) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        trials = np.where(variance > 0, estimate * (1 - estimate) / variance, sizes.sum())
    low, high = _score_interval(estimate, trials, z)
    return Profile(taus, estimate, low, high, level, sum(map(len, strata)))


def wilson(successes: float, trials: int, *, level: float = 0.95) -> Interval:
    """A share of independent trials with Wilson's score interval (Wilson 1927), which stays within [0, 1] and is right for few trials.

    Args:
        successes: how many; a tie may count half.
        trials: of how many.
        level: confidence in (0, 1).

    Raises:
        RheostatError: no trial, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise RheostatError(f"{successes} successes in {trials} trials: a share needs at least one trial and at most as many successes.")
    low, high = _score_interval(successes / trials, trials, student(math.inf, level))
    return Interval(successes / trials, float(low), float(high), level, trials)


def share_of(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean of numbers in [0, 1], one per unit (prompt, seed), with a score interval for the number of trials that their spread corresponds
    to.

    The number of trials is p (1 - p) / (s^2 / n): for zeros and ones about n, for units that vary less than coin flips, more. Student's
    quantile takes the place of the normal one, because the spread is estimated. Where all units are alike there are n trials.

    Args:
        values: ``[units]``.
        level: confidence in (0, 1).

    Raises:
        RheostatError: see :func:`as_strata`; a number outside [0, 1].
    """
    found = as_strata(values, "values")[0]
    if found.min() < -1e-12 or found.max() > 1 + 1e-12:
        raise RheostatError(f"A share lies between 0 and 1, and there is {found.min() if found.min() < 0 else found.max():g}.")
    n, share = len(found), min(1.0, max(0.0, float(found.mean())))
    if n < 2:
        student(1, level)  # checks the level
        return Interval(share, 0.0, 1.0, level, n)
    variance = float(found.var(ddof=1)) / n
    trials = share * (1 - share) / variance if variance > 0 else n
    low, high = _score_interval(share, trials, student(n - 1, level))
    return Interval(share, float(low), float(high), level, n)


def _score_interval(share: ArrayLike, trials: ArrayLike, z: float) -> tuple[Array, Array]:
    """Wilson's formula, for whole arrays and for numbers of trials that are not whole."""
    p, n = np.asarray(share, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = np.where(p == 0, 0.0, centre - half), np.where(p == 1, 1.0, centre + half)  # exactly, where rounding would leave 1e-17
    return np.maximum(0.0, low), np.minimum(1.0, high)


def clustered_share(outcomes: Sequence[ArrayLike], *, level: float = 0.95) -> Interval:
    """Accuracy over prompts with several samples each: the mean over prompts, with *prompts* as the units (:func:`share_of`).

    Samples of one prompt are not independent evidence, so they never count as separate trials.

    Args:
        outcomes: for every prompt, its samples' outcomes in [0, 1]; numbers of samples may differ.
        level: confidence in (0, 1).
    """
    per_prompt = [
        float(as_strata(np.asarray(samples, dtype=np.float64), f"prompt {index}")[0].mean()) for index, samples in enumerate(outcomes)
    ]
    return share_of(per_prompt, level=level)
