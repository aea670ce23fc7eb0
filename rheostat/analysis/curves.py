"""Curves over seeds: several runs of an arm as one line with an interval band.

Seeds are aggregated at equal budget (steps) by linear interpolation, over the range that *all* of them cover, so that every point rests
on the same seeds. Against another axis (wall time, updates, ...) the same points are drawn at the mean of that axis over the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rheostat.analysis.metrics import AXES
from rheostat.analysis.records import Array, Record
from rheostat.analysis.statistics import iqm_bounds
from rheostat.errors import RheostatError

POINTS = 250
LEAST_SEEDS = 3
"""Fewest seeds with a band: of two, Student's interval is thirteen times as wide as their spread, and hides every curve."""


@dataclass(frozen=True)
class Curve:
    """One arm's line for one metric.

    Attributes:
        x: budgets ``[points]`` by axis; every axis all its seeds have.
        y: interquartile mean over seeds ``[points]`` (the value itself for one seed).
        low, high: its t interval ``[points]``; None for fewer than three seeds.
        seeds: the single seeds on the same points, ``[seeds, points]``.
        level: confidence of the band.
        averaged: rows of the log that were averaged into one point (1: none).
    """

    x: dict[str, Array]
    y: Array
    low: Array | None
    high: Array | None
    seeds: Array
    level: float
    averaged: int = 1


def arm_curve(records: Sequence[Record], metric: str, *, points: int = POINTS, level: float = 0.95) -> Curve | None:
    """The curve of runs that differ by their seed only; None where some seed has not measured the metric.

    Args:
        records: the seeds.
        metric: a key of their columns.
        points: most points to draw.
        level: confidence of the band.
    """
    series = []
    for record in records:
        if metric not in record.columns:
            return None
        rows, values = record.curve(metric)
        if not len(rows):
            return None
        series.append((record.columns["steps"][rows], values))
    if len(records) == 1:
        return _single(records[0], metric, points, level)
    low, high = max(steps[0] for steps, _ in series), min(steps[-1] for steps, _ in series)
    if high < low:
        return None
    shared = series[0][0]
    same = len(shared) <= points and all(len(steps) == len(shared) and (steps == shared).all() for steps, _ in series)
    most = max(int(((steps >= low) & (steps <= high)).sum()) for steps, _ in series)
    grid = shared if same else np.linspace(low, high, max(2, min(points, most))) if high > low else np.array([low])
    values = np.stack([np.interp(grid, steps, value) for steps, value in series])
    x = {axis.key: _mean_axis(records, axis.key, grid) for axis in AXES if all(record.axis(axis.key) is not None for record in records)}
    y, band_low, band_high = band(values, level)
    return Curve(x, y, band_low, band_high, values, level)


def band(values: Array, level: float = 0.95) -> tuple[Array, Array | None, Array | None]:
    """Interquartile mean over seeds ``[seeds, points]`` and its t interval at every point, ``[points]`` each; no interval for two seeds."""
    if not np.isfinite(values).all():
        raise RheostatError("A curve holds a number that is not finite: look at that run, a statistic cannot average it away.")
    y, low, high = iqm_bounds(values.T, level)
    return (y, low, high) if len(values) >= LEAST_SEEDS else (y, None, None)


def _single(record: Record, metric: str, points: int, level: float) -> Curve:
    """One run's rows; too many are averaged in equal groups, so that spikes are not picked or dropped by chance."""
    rows, values = record.curve(metric)
    size = -(-len(rows) // points)
    starts = np.arange(0, len(rows), size)

    def thin(column: Array) -> Array:
        return np.add.reduceat(column, starts) / np.diff(np.append(starts, len(column)))

    axes = {axis.key: record.axis(axis.key) for axis in AXES}
    x = {key: thin(column[rows]) for key, column in axes.items() if column is not None}
    y = thin(values)
    return Curve(x, y, None, None, y[None], level, averaged=size)


def _mean_axis(records: Sequence[Record], key: str, grid: Array) -> Array:
    if key == "steps":
        return grid
    columns = []
    for record in records:
        axis = record.axis(key)
        assert axis is not None
        columns.append(np.interp(grid, record.columns["steps"], axis))
    return np.mean(columns, axis=0)
