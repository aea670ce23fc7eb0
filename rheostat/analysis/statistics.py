"""Statistics over seeds. The seed is the unit: everything measured within one run is one number here.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", arXiv 2108.13264 (library: rliable).

Scores come as ``[seeds]`` for one task or as ``{task: [seeds]}`` for several; tasks may have different numbers of seeds. Bootstrap
resamples redraw seeds *within* each task (stratified); intervals are percentile intervals. Whatever uses chance takes a generator.
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
"""One ``[..., seeds]`` array per task to ``[...]``: the last dimension is reduced, so that all resamples are computed at once."""

RESAMPLES = 5000


@dataclass(frozen=True)
class Interval:
    """An estimate and where it lies."""

    estimate: float
    low: float
    high: float
    level: float
    """Confidence, e.g. 0.95."""
    n: int
    """How many units (seeds, prompts, trials) it rests on."""

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Profile:
    """Share of runs that score above each threshold, averaged over tasks."""

    thresholds: Array
    estimate: Array
    low: Array
    high: Array
    level: float
    n: int


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
    """Mean over tasks of the mean over seeds."""
    return np.mean([values.mean(-1) for values in strata], axis=0)


def iqm(strata: Sequence[Array]) -> Array:
    """Interquartile mean: all scores of all tasks pooled, a quarter cut from either end (``floor(n / 4)`` scores), the rest averaged."""
    pooled = np.concatenate(list(strata), axis=-1)
    n = pooled.shape[-1]
    cut = n // 4
    return np.sort(pooled, axis=-1)[..., cut : n - cut].mean(-1) if cut else pooled.mean(-1)


def median(strata: Sequence[Array]) -> Array:
    """Median over tasks of the mean over seeds."""
    return np.median([values.mean(-1) for values in strata], axis=0)


def optimality_gap(target: float) -> Statistic:
    """How far scores fall short of ``target`` on average; what lies above it does not make up for what lies below."""

    def statistic(strata: Sequence[Array]) -> Array:
        return target - np.minimum(np.concatenate(list(strata), axis=-1), target).mean(-1)

    return statistic


# --- intervals ---------------------------------------------------------------------------------------------------------------------------


def bootstrap(
    scores: Scores,
    statistic: Statistic = iqm,
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """An aggregate with its stratified percentile bootstrap interval.

    With one seed per task the resamples are all the same: the interval is then unbounded, because nothing is known.

    Args:
        scores: ``[seeds]`` or ``{task: [seeds]}``.
        statistic: what to estimate, e.g. :func:`iqm` or :func:`mean`.
        generator: source of the resamples.
        level: confidence in (0, 1).
        resamples: number of bootstrap samples.

    Raises:
        RheostatError: see :func:`as_strata`; a level outside (0, 1).
    """
    strata = as_strata(scores)
    n = sum(map(len, strata))
    estimate = float(statistic(strata))
    if max(map(len, strata)) < 2:
        _check_level(level)
        return Interval(estimate, -math.inf, math.inf, level, n)
    low, high = percentile(statistic(resample(strata, generator, resamples)), level)
    return Interval(estimate, float(low), float(high), level, n)


def resample(strata: Sequence[Array], generator: np.random.Generator, resamples: int) -> list[Array]:
    """Seeds redrawn with replacement within every task, ``[resamples, seeds]`` each."""
    return [values[generator.integers(len(values), size=(resamples, len(values)))] for values in strata]


def percentile(samples: Array, level: float) -> tuple[Array, Array]:
    """The central ``level`` share of bootstrap samples ``[resamples, ...]``: its two ends ``[...]``."""
    _check_level(level)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise RheostatError(f"The confidence level is {level}: it must lie between 0 and 1, e.g. 0.95.")


def difference(
    a: Scores,
    b: Scores,
    statistic: Statistic = iqm,
    *,
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """``statistic(a) - statistic(b)`` of independent seeds, with its bootstrap interval; ``n`` counts the seeds of the smaller side.

    Raises:
        RheostatError: see :func:`as_strata`; different tasks.
    """
    x, y = as_strata(a, "a"), as_strata(b, "b")
    require_same_tasks(a, b)
    n = min(sum(map(len, x)), sum(map(len, y)))
    estimate = float(statistic(x) - statistic(y))
    if max(map(len, x)) < 2 or max(map(len, y)) < 2:
        return Interval(estimate, -math.inf, math.inf, level, n)
    samples = statistic(resample(x, generator, resamples)) - statistic(resample(y, generator, resamples))
    low, high = percentile(samples, level)
    return Interval(estimate, float(low), float(high), level, n)


def require_same_tasks(a: Scores, b: Scores) -> None:
    """Refuse to compare scores of different tasks."""
    left = list(a) if isinstance(a, Mapping) else [""]
    right = list(b) if isinstance(b, Mapping) else [""]
    if left != right:
        raise RheostatError(f"The two sides were measured on different tasks ({', '.join(left)} against {', '.join(right)}).")


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


def probability_of_improvement(
    a: Scores, b: Scores, *, generator: np.random.Generator, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """How probable it is that a run of A beats a run of B, with its bootstrap interval.

    The interval of few seeds that are completely separated collapses to a point; :func:`rheostat.analysis.verdict.decide` therefore
    asks for an exact test besides.

    Raises:
        RheostatError: see :func:`as_strata`; different tasks.
    """
    x, y = as_strata(a, "a"), as_strata(b, "b")
    require_same_tasks(a, b)
    n = min(sum(map(len, x)), sum(map(len, y)))
    estimate = float(improvement(x, y))
    if max(map(len, x)) < 2 or max(map(len, y)) < 2:
        return Interval(estimate, 0.0, 1.0, level, n)
    low, high = percentile(improvement(resample(x, generator, resamples), resample(y, generator, resamples)), level)
    return Interval(estimate, float(low), float(high), level, n)


def performance_profile(
    scores: Scores, thresholds: ArrayLike, *, generator: np.random.Generator, level: float = 0.95, resamples: int = 2000
) -> Profile:
    """Share of runs with a score above each threshold, averaged over tasks, with a pointwise bootstrap band.

    Args:
        scores: ``[seeds]`` or ``{task: [seeds]}``, on one scale.
        thresholds: ``[thresholds]``.
        generator, level, resamples: see :func:`bootstrap`.
    """
    strata = as_strata(scores)
    taus = np.asarray(thresholds, dtype=np.float64)

    def above(values: Sequence[Array]) -> Array:
        return np.mean([(task[..., None] > taus).mean(-2) for task in values], axis=0)

    low, high = percentile(above(resample(strata, generator, resamples)), level)
    return Profile(taus, above(strata), low, high, level, sum(map(len, strata)))


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


def wilson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """A share of independent trials with Wilson's score interval (Wilson 1927), which stays within [0, 1] and is right for few trials.

    Raises:
        RheostatError: no trial, or more successes than trials.
    """
    from scipy.stats import norm

    _check_level(level)
    if trials < 1 or not 0 <= successes <= trials:
        raise RheostatError(f"{successes} successes in {trials} trials: a share needs at least one trial and at most as many successes.")
    z = float(norm.ppf((1 + level) / 2))
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), level, trials)


def clustered_share(
    outcomes: Sequence[ArrayLike], *, generator: np.random.Generator, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Accuracy over prompts with several samples each: the mean over prompts, resampling *prompts*.

    Samples of one prompt are not independent evidence, so they never count as separate trials.

    Args:
        outcomes: for every prompt, its samples' outcomes in [0, 1]; numbers of samples may differ.
        generator, level, resamples: see :func:`bootstrap`.
    """
    per_prompt = [
        float(as_strata(np.asarray(samples, dtype=np.float64), f"prompt {index}")[0].mean()) for index, samples in enumerate(outcomes)
    ]
    return bootstrap(per_prompt, mean, generator=generator, level=level, resamples=resamples)
