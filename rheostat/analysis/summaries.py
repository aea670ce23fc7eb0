"""The final table: what every arm reached, with intervals over seeds, and whether it beats the first arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rheostat.analysis.metrics import describe
from rheostat.analysis.records import Arm, Record
from rheostat.analysis.statistics import Array, Interval, area_under_curve, bootstrap, iqm
from rheostat.analysis.verdict import Verdict, decide

SAMPLING_ERROR = "meter/sampling_error"
FINAL_LABELS = {"evaluation_return": "Final evaluation return", "accuracy": "Final accuracy"}


@dataclass(frozen=True)
class ArmSummary:
    """One row of the table. Intervals are bootstrap intervals of the interquartile mean over finished seeds."""

    label: str
    method: str
    seeds: tuple[int, ...]
    unfinished: tuple[int, ...]
    metric: str | None
    """Which number is final."""
    final: Interval | None
    mean_over_training: Interval | None
    """Area under the training curve divided by the budget."""
    speed: float
    """Median over seeds of steps per second of wall time; NaN unknown."""
    sampling_error: Interval | None
    """Mean over training."""
    verdict: Verdict | None
    """Whether this arm beats the first one; None for the first, and where they cannot be compared."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON (unbounded ends of an interval are null)."""
        row: dict[str, Any] = {"method": self.label, "seeds": len(self.seeds), "unfinished": list(self.unfinished), "metric": self.metric}
        for name, interval in (
            ("final", self.final),
            ("mean_over_training", self.mean_over_training),
            ("sampling_error", self.sampling_error),
        ):
            row[name] = _number(interval.estimate) if interval else None
            row[f"{name}_interval"] = _bounds(interval)
        row["steps_per_second"] = _number(self.speed)
        if self.verdict is None:
            return row | dict.fromkeys(
                (
                    "difference",
                    "difference_interval",
                    "probability_of_improvement",
                    "probability_interval",
                    "p_value",
                    "verdict",
                    "more_seeds",
                )
            )
        return row | {
            "difference": self.verdict.difference.estimate,
            "difference_interval": _bounds(self.verdict.difference),
            "probability_of_improvement": self.verdict.probability.estimate,
            "probability_interval": _bounds(self.verdict.probability),
            "p_value": self.verdict.p_value,
            "verdict": self.verdict.outcome,
            "more_seeds": self.verdict.more_seeds,
        }


def summarise(arms: Sequence[Arm], *, generator: np.random.Generator, level: float = 0.95) -> tuple[list[ArmSummary], list[str]]:
    """Rows of the final table, and sentences on what a reader must know before believing it.

    Args:
        arms: of one task; the first is what the others are compared with.
        generator: source of resamples.
        level: confidence.

    Raises:
        RheostatError: a final value that is not finite.
    """
    notes: list[str] = []
    rows: list[ArmSummary] = []
    finals: list[Array] = []
    budgets = {arm.records[0].settings.get("steps") for arm in arms}
    if len(budgets) > 1:
        notes.append(f"The budgets differ ({', '.join(f'{b:,}' for b in sorted(b for b in budgets if b))} steps): no verdict is given.")
    for index, arm in enumerate(arms):
        done = [record for record in arm.records if record.finished]
        unfinished = tuple(record.seed for record in arm.records if not record.finished)
        if unfinished:
            notes.append(f"{arm.label}: {'seed' if len(unfinished) == 1 else 'seeds'} {', '.join(map(str, unfinished))} not finished.")
        metrics = {record.final_metric for record in done}
        metric = metrics.pop() if len(metrics) == 1 else None
        values = np.array([record.final for record in done]) if metric else np.empty(0)
        finals.append(values)
        verdict = None
        if index and len(values) and len(finals[0]) and metric == rows[0].metric and len(budgets) == 1:
            verdict = decide(values, finals[0], generator=generator, level=level)
        rows.append(
            ArmSummary(
                label=arm.label,
                method=arm.method,
                seeds=tuple(record.seed for record in done),
                unfinished=unfinished,
                metric=metric,
                final=bootstrap(values, iqm, generator=generator, level=level) if len(values) else None,
                mean_over_training=_interval([_area(record) for record in done], generator, level),
                speed=_median([record.speed for record in arm.records]),
                sampling_error=_interval([_average(record, SAMPLING_ERROR) for record in done], generator, level),
                verdict=verdict,
            )
        )
        notes += [f"{arm.label}: {sentence}" for sentence in dict.fromkeys(_remarks(arm))]
        notes += _nonfinite_notes(arm)
    return rows, notes


def final_label(rows: Sequence[ArmSummary]) -> str:
    """Heading of the column of final values."""
    metric = next((row.metric for row in rows if row.metric), None)
    if metric is None:
        return "Final performance"
    return FINAL_LABELS.get(metric, f"{describe(metric).label}, last tenth")


def _remarks(arm: Arm) -> list[str]:
    """What the runs say about their corrections, without the numbers that differ between seeds."""
    said = [sentence for record in arm.records for sentence in record.summary.get("remarks", [])]
    return list({sentence.split(" although")[0]: sentence for sentence in said}.values())


def _nonfinite_notes(arm: Arm) -> list[str]:
    counts: dict[str, int] = {}
    for record in arm.records:
        for key, count in record.nonfinite.items():
            counts[key] = counts.get(key, 0) + count
    return [
        f"{arm.label}: {count} value(s) of {describe(key).label} are NaN or infinite and are left out." for key, count in counts.items()
    ]


def _area(record: Record) -> float:
    """Mean height of the training curve over the budget; NaN where there is none."""
    if record.headline is None:
        return math.nan
    rows, values = record.curve(record.headline)
    if not len(rows):
        return math.nan
    return area_under_curve(record.columns["steps"][rows], values, until=float(record.settings.get("steps", math.inf)))


def _average(record: Record, metric: str) -> float:
    if metric not in record.columns:
        return math.nan
    values = record.curve(metric)[1]
    return float(values.mean()) if len(values) else math.nan


def _interval(values: Sequence[float], generator: np.random.Generator, level: float) -> Interval | None:
    """None unless every seed has the number."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return bootstrap(values, iqm, generator=generator, level=level)


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bounds(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_number(interval.low), _number(interval.high)]
