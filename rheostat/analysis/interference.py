"""Negative interference: whether learning one problem costs another (arXiv 2510.02230).

The first-order form: a step of size eta on problem j changes problem i by about ``eta <grad J_i, grad J_j>``. The measured form: how the
log-probability of right solutions of *other* problems changed between two models. Both definitions are reconstructions: the paper's printed
ones were not available.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rheostat.analysis.shares import share_of
from rheostat.analysis.statistics import Interval, interval_of, mean
from rheostat.errors import RheostatError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Influence:
    """The effect of a step on each problem on every other, to first order."""

    matrix: Array
    """``[P, P]``: change of problem i by a step on problem j."""
    negative_share: float
    """Share of the entries off the diagonal that are below 0."""
    mean_effect: float
    """Mean entry off the diagonal."""
    received: float
    """Mean over problems of the effect of all others on one, itself left out."""


def influence(gradients: ArrayLike, step: float) -> Influence:
    """First-order interference from the gradient of every problem's own objective.

    Args:
        gradients: ``[P, D]``, gradient of problem i's expected reward (or of the log-probability of a right solution).
        step: step size eta.

    Raises:
        RheostatError: fewer than two problems, or a table that is not one row per problem.
    """
    table = np.asarray(gradients, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise RheostatError(f"Interference is between problems: give one gradient for each of at least two, [P, D]; got {table.shape}.")
    matrix = step * (table @ table.T)
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    return Influence(matrix, float((others < 0).mean()), float(others.mean()), float(others.sum() / len(matrix)))


@dataclass(frozen=True)
class Interference:
    """The change of log-probabilities of right solutions between two models."""

    harmed: Interval
    """Share of problems whose right solutions have become less likely."""
    change: Interval
    """Mean over problems of the change of a solution's log-probability, nats, with Student's interval."""
    per_problem: Array
    """``[problems with a solution]``, nats."""


def interference(before: ArrayLike, after: ArrayLike, problem: ArrayLike, *, level: float = 0.95) -> Interference:
    """Measured interference from log-probabilities of the same right solutions under two models.

    Args:
        before: ``[N]`` of whole solutions, in nats.
        after: ``[N]`` of the same solutions under the other model.
        problem: ``[N]`` numbers: solutions of one problem are averaged before anything else.
        level: of the intervals.

    Raises:
        RheostatError: different lengths, or no solution.
    """
    first, second, of = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64), np.asarray(problem)
    if not (first.shape == second.shape == of.shape) or first.ndim != 1 or not len(first):
        raise RheostatError(
            "Interference needs the log-probability of each right solution before and after, and its problem: three equally long lists, "
            f"not empty; got {first.shape}, {second.shape} and {of.shape}."
        )
    found = np.array([(second - first)[of == number].mean() for number in np.unique(of)])
    return Interference(share_of((found < 0).astype(float), level=level), interval_of(found, mean, level=level), found)
