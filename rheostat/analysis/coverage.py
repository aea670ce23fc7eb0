"""Winner-take-all: which problems a model could solve before training, and which it can solve after (arXiv 2510.02230).

On-policy training moves a problem in proportion to p (1 - p), so problems that are almost never solved get no signal while shared weights
change for the rest. Its symptom: pass@1 rises and pass@k falls for large k, because some problems are no longer solved at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from rheostat.analysis.pass_at_k import pass_at_k, pass_at_k_interval
from rheostat.analysis.shares import share_of
from rheostat.analysis.statistics import Interval, interval_of, mean
from rheostat.errors import RheostatError


@dataclass(frozen=True)
class Decile:
    """Problems of similar success before training."""

    low: float
    high: float
    """Their success rates before training lie in [low, high)."""
    problems: int
    change: float
    """Mean change of the success rate."""


@dataclass(frozen=True)
class Coverage:
    """Two models on the same problems, with as many completions each."""

    before: Mapping[int, Interval]
    """k -> pass@k of the first model."""
    after: Mapping[int, Interval]
    change: Mapping[int, Interval]
    """k -> mean difference over problems, with Student's interval."""
    lost: Interval
    """Share of problems that were solved before and are never solved after."""
    gained: Interval
    """Share of problems that were never solved before and are solved after."""
    rank_correlation: float
    """Spearman's, between the rate before and its change; NaN where either does not vary."""
    deciles: Sequence[Decile]


def coverage(before: ArrayLike, after: ArrayLike, *, ks: Sequence[int] | None = None, level: float = 0.95) -> Coverage:
    """The problems gained and lost between two models.

    Args:
        before: ``[P, n]`` bool, which completions of each problem are right.
        after: ``[P, n]`` of the other model: the same problems in the same order, and equally many completions, else pass@k and the shares
            are not comparable.
        ks: which pass@k; None: 1, 2, 4, ... up to n.
        level: of the intervals.

    Raises:
        RheostatError: different shapes, no completion, or a k above n.
    """
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise RheostatError(
            f"Two models are compared on the same problems with equally many completions; there are {first.shape} and {second.shape}."
        )
    n = first.shape[1]
    chosen = [2**i for i in range(n.bit_length()) if 2**i <= n] if ks is None else sorted(set(ks))
    p0, p1 = first.mean(1), second.mean(1)
    change = p1 - p0
    varies = np.ptp(p0) > 0 and np.ptp(change) > 0
    return Coverage(
        {k: pass_at_k_interval(first, k, level=level) for k in chosen},
        {k: pass_at_k_interval(second, k, level=level) for k in chosen},
        {k: interval_of(pass_at_k(second, k) - pass_at_k(first, k), mean, level=level) for k in chosen},
        share_of(((p0 > 0) & (p1 == 0)).astype(float), level=level),
        share_of(((p0 == 0) & (p1 > 0)).astype(float), level=level),
        float(scipy.stats.spearmanr(p0, change).statistic) if varies else float("nan"),
        deciles_of(p0, change),
    )


def deciles_of(rate: np.ndarray, change: np.ndarray) -> list[Decile]:
    """Mean change by tenths of the rate before; tenths without problems are left out.

    Args:
        rate: ``[P]`` in [0, 1].
        change: ``[P]``.
    """
    tenth = np.minimum((rate * 10 + 1e-9).astype(int), 9)
    return [
        Decile(number / 10, (number + 1) / 10, int((tenth == number).sum()), float(change[tenth == number].mean()))
        for number in np.unique(tenth)
    ]
