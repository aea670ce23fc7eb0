"""Statistics over seeds. The seed is the unit: everything measured within one run is one number here.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", arXiv 2108.13264 (library: rliable).

Scores come as ``[seeds]`` for one task or as ``{task: [seeds]}`` for several; tasks may have different numbers of seeds, and the seeds of a
task vary about that task's own mean (stratified).

Intervals are Student's: estimate +- t(df) * standard error. The percentile bootstrap that is usual in the field covers the mean of six
normal numbers in 86 of 100 cases where it promises 95, because it takes the spread of few numbers for the true one. Standard errors:

mean         s / sqrt(n)
iqm          of the winsorised scores (Yuen 1974): squared deviations / (h (h - 1)) with h scores left after trimming
else         the jackknife, leaving out one seed of one task at a time

Degrees of freedom of sums are Welch's (1947). Shares are in :mod:`rheostat.analysis.shares`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rheostat.errors import RheostatError

Array = NDArray[np.float64]
Scores = ArrayLike | Mapping[str, ArrayLike]
Statistic = Callable[[Sequence[Array]], Array]
"""One ``[..., seeds]`` array per task to ``[...]``: the last dimension is reduced, so that many samples are computed at once."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval."""

    estimate: float
    low: float
    high: float
    level: float
    """Confidence, e.g. 0.95."""
    n: int
    """Number of units (seeds, prompts, trials)."""

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def as_strata(scores: Scores, name: str = "scores") -> list[Array]:
    """Scores as one float64 ``[seeds]`` array per task.

    Raises:
        RheostatError: no task, a task without seeds, more than one dimension, or a number that is not finite.
    """
    tasks = scores if isinstance(scores, Mapping) else {"": scores}
    strata = []
    for task, values in tasks.items():
        array = np.asarray(values, dtype=np.float64)
        where = f"{name}[{task!r}]" if task else name
        if array.ndim != 1:
            raise RheostatError(f"{where} has shape {list(array.shape)}: give one number per seed, and several tasks as a dict.")
        if not len(array):
            raise RheostatError(f"{where} is empty: a statistic needs at least one seed.")
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array))[0])
            raise RheostatError(f"{where} holds {array[bad]} at position {bad}: look at that run, a statistic cannot average it away.")
        strata.append(array)
    if not strata:
        raise RheostatError(f"{name} is empty: a statistic needs at least one task.")
    return strata


# --- aggregates: one [..., seeds] array per task to [...] ------------------------------------------------------------------------------


def mean(strata: Sequence[Array]) -> Array:
    """Mean over tasks of the mean over seeds, of ``[..., seeds]`` for each task: ``[...]``."""
    return np.mean([values.mean(-1) for values in strata], axis=0)


def iqm(strata: Sequence[Array]) -> Array:
    """Interquartile mean: all scores of all tasks pooled, a quarter cut from either end (``floor(n / 4)`` scores), the rest averaged.

    Args:
        strata: ``[..., seeds]`` of each task.

    Returns:
        ``[...]``.
    """
    pooled = np.concatenate(list(strata), axis=-1)
    n = pooled.shape[-1]
    cut = n // 4
    return np.sort(pooled, axis=-1)[..., cut : n - cut].mean(-1) if cut else pooled.mean(-1)


def median(strata: Sequence[Array]) -> Array:
    """Median over tasks of the mean over seeds, of ``[..., seeds]`` for each task: ``[...]``."""
    return np.median([values.mean(-1) for values in strata], axis=0)


def optimality_gap(target: float) -> Statistic:
    """Mean shortfall of scores below ``target``; scores above it count as 0 and do not compensate."""

    def statistic(strata: Sequence[Array]) -> Array:
        return target - np.minimum(np.concatenate(list(strata), axis=-1), target).mean(-1)

    return statistic


# --- intervals ---------------------------------------------------------------------------------------------------------------------------


def interval_of(scores: Scores, statistic: Statistic = iqm, *, level: float = 0.95) -> Interval:
    """An aggregate with its t interval.

    Where a task has a single seed its spread is unknown, and the interval is unbounded.

    Args:
        scores: ``[seeds]`` or ``{task: [seeds]}``.
        statistic: what to estimate, e.g. :func:`iqm` or :func:`mean`.
        level: confidence in (0, 1).

    Raises:
        RheostatError: see :func:`as_strata`; a level outside (0, 1).
    """
    strata = as_strata(scores)
    return _bounded(float(statistic(strata)), [_spread(strata, statistic)], level, sum(map(len, strata)))


def difference(a: Scores, b: Scores, statistic: Statistic = iqm, *, level: float = 0.95) -> Interval:
    """``statistic(a) - statistic(b)`` of independent seeds, with Welch's t interval; ``n`` counts the seeds of the smaller side.

    Raises:
        RheostatError: see :func:`as_strata`; different tasks; a level outside (0, 1).
    """
    x, y = as_strata(a, "a"), as_strata(b, "b")
    require_same_tasks(a, b)
    n = min(sum(map(len, x)), sum(map(len, y)))
    return _bounded(float(statistic(x) - statistic(y)), [_spread(x, statistic), _spread(y, statistic)], level, n)


def t_bounds(values: Array, level: float = 0.95) -> tuple[Array, Array, Array]:
    """Mean over the last dimension of ``[..., n]`` and Student's interval, ``[...]`` each; unbounded for n = 1."""
    n = values.shape[-1]
    return _around(values.mean(-1), values.var(-1, ddof=1) / n if n > 1 else np.zeros(values.shape[:-1]), n - 1, level)


def iqm_bounds(values: Array, level: float = 0.95) -> tuple[Array, Array, Array]:
    """Interquartile mean over the last dimension of ``[..., n]`` and its t interval, ``[...]`` each; unbounded for n = 1."""
    variance, freedom = _winsorised([values])
    return _around(iqm([values]), variance, freedom, level)


def student(freedom: float, level: float) -> float:
    """The two-sided quantile of Student's t at a confidence.

    Raises:
        RheostatError: a level outside (0, 1).
    """
    from scipy.stats import t

    if not 0 < level < 1:
        raise RheostatError(f"The confidence level is {level}: it must lie between 0 and 1, e.g. 0.95.")
    return float(t.ppf((1 + level) / 2, freedom)) if freedom > 0 else math.inf


def _around(centre: Array, variance: Array, freedom: float, level: float) -> tuple[Array, Array, Array]:
    """An estimate and its interval; without a degree of freedom it is unbounded."""
    half = student(freedom, level) * np.sqrt(variance) if freedom > 0 else np.full(np.shape(centre), math.inf)
    return np.asarray(centre), centre - half, centre + half


def _bounded(estimate: float, spreads: Sequence[list[tuple[float, float]]], level: float, n: int) -> Interval:
    """The interval from (variance, degrees of freedom) of independent parts."""
    parts = [part for spread in spreads for part in spread]
    if min(freedom for _, freedom in parts) <= 0:
        student(1, level)  # checks the level
        return Interval(estimate, -math.inf, math.inf, level, n)
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in parts) if total > 0 else sum(f for _, f in parts)
    half = student(freedom, level) * math.sqrt(total)
    return Interval(estimate, estimate - half, estimate + half, level, n)


def _spread(strata: Sequence[Array], statistic: Statistic) -> list[tuple[float, float]]:
    """(variance, degrees of freedom) of the parts of an aggregate that vary independently."""
    if statistic is mean:
        return [(float(x.var(ddof=1)) / len(x) / len(strata) ** 2 if len(x) > 1 else 0.0, len(x) - 1) for x in strata]
    if statistic is iqm:
        variance, freedom = _winsorised(strata)
        return [(float(variance), freedom)]
    found = []
    for index, values in enumerate(strata):
        n = len(values)
        if n < 2:
            found.append((0.0, 0.0))
            continue
        kept = values[np.nonzero(~np.eye(n, dtype=bool))[1].reshape(n, n - 1)]
        others = [kept if i == index else np.broadcast_to(x, (n, len(x))) for i, x in enumerate(strata)]
        left_out = statistic(others)
        found.append((float((n - 1) / n * np.square(left_out - left_out.mean()).sum()), float(n - 1)))
    return found


def _winsorised(strata: Sequence[Array]) -> tuple[Array, float]:
    """Variance of the pooled interquartile mean of one ``[..., seeds]`` array per task, ``[...]``, and its degrees of freedom."""
    pooled = np.sort(np.concatenate(list(strata), axis=-1), axis=-1)
    n = pooled.shape[-1]
    cut = n // 4
    freedom = n - 2 * cut - len(strata)
    if freedom <= 0 or min(x.shape[-1] for x in strata) < 2:
        return np.zeros(pooled.shape[:-1]), 0
    low, high = pooled[..., cut, None], pooled[..., n - cut - 1, None]
    total = np.sum([x.shape[-1] * np.clip(x, low, high).var(-1) for x in strata], axis=0)
    return total / ((n - 2 * cut) * freedom), freedom


def require_same_tasks(a: Scores, b: Scores) -> None:
    """Refuse to compare scores of different tasks."""
    left = list(a) if isinstance(a, Mapping) else [""]
    right = list(b) if isinstance(b, Mapping) else [""]
    if left != right:
        raise RheostatError(f"The two sides were measured on different tasks ({', '.join(left)} against {', '.join(right)}).")


def area_under_curve(x: ArrayLike, y: ArrayLike, *, until: float | None = None, bounds: tuple[float, float] = (0.0, 1.0)) -> float:
    """Mean height of a learning curve: the trapezoid integral over ``x`` divided by its length, then scaled by ``bounds``.

    Args:
        x: ``[points]`` budget, not decreasing.
        y: ``[points]`` performance.
        until: cut the curve here (interpolated), so that runs that overshoot the budget differently stay comparable.
        bounds: performance that counts as 0 and as 1.

    Raises:
        RheostatError: shapes that differ, fewer than one point, a budget that decreases, or a number that is not finite.
    """
    budget, height = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if budget.shape != height.shape or budget.ndim != 1 or not len(budget):
        raise RheostatError(f"A curve needs as many budgets as values, at least one: got {list(budget.shape)} and {list(height.shape)}.")
    if not (np.isfinite(budget).all() and np.isfinite(height).all()):
        raise RheostatError("A curve holds a number that is not finite: look at that run, a statistic cannot average it away.")
    if (np.diff(budget) < 0).any():
        raise RheostatError("The budget of a curve must not decrease from point to point.")
    if until is not None and budget[0] < until < budget[-1]:
        keep = budget < until
        height = np.append(height[keep], np.interp(until, budget, height))
        budget = np.append(budget[keep], until)
    length = budget[-1] - budget[0]
    average = np.trapezoid(height, budget) / length if length > 0 else height.mean()
    low, high = bounds
    return float((average - low) / (high - low))
