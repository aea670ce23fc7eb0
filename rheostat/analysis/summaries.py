"""The final table: the result of every arm, with intervals over seeds, and whether it beats the first arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rheostat.analysis.metrics import describe
from rheostat.analysis.records import Arm, Record
from rheostat.analysis.statistics import Interval, area_under_curve, interval_of, iqm
from rheostat.analysis.verdict import RULE, Verdict, holm, judge, over_looks

SAMPLING_ERROR = "meter/sampling_error"
FINAL_LABELS = {
    "evaluation_return": "Final evaluation return",
    "accuracy": "Final validation reward",
    "student_test_reward": "Final test reward",
}


@dataclass(frozen=True)
class ArmSummary:
    """One row of the table. Intervals are t intervals of the interquartile mean over finished seeds."""

    label: str
    method: str
    seeds: tuple[int, ...]
    unfinished: tuple[int, ...]
    metric: str | None
    """The metric of the final value."""
    final: Interval | None
    mean_over_training: Interval | None
    """Area under the training curve divided by the budget."""
    speed: float
    """Median over seeds of steps per second of wall time; NaN unknown."""
    sampling_error: Interval | None
    """Mean over training."""
    verdict: Verdict | None
    """Whether this arm beats the first one, from matched seeds; None for the first, and where they cannot be compared."""
    family_p: float | None = None
    """The p-value over all looks, adjusted by Holm for all arms that are compared with the first; None where nothing was tested."""

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
        verdict = self.verdict
        return row | {
            "difference": None if verdict is None else _number(verdict.difference.estimate),
            "difference_interval": _bounds(None if verdict is None else verdict.difference),
            "difference_iqm": None if verdict is None else _number(verdict.iqm.estimate),
            "difference_iqm_interval": _bounds(None if verdict is None else verdict.iqm),
            "probability_of_improvement": None if verdict is None else verdict.probability.estimate,
            "probability_interval": _bounds(None if verdict is None else verdict.probability),
            "p_value": None if verdict is None or verdict.look is None else verdict.p_value,
            "family_p_value": self.family_p,
            "matched_seeds": None if verdict is None else verdict.seeds,
            "verdict": None if verdict is None else verdict.outcome,
            "look": None if verdict is None else verdict.look,
            "next_look": None if verdict is None else verdict.next_look,
            "flags": [] if verdict is None else list(verdict.flags),
        }


def summarise(arms: Sequence[Arm], *, level: float = 0.95, margin: float | None = None) -> tuple[list[ArmSummary], list[str]]:
    """Rows of the final table, and warnings for its readers.

    Arms are compared by the rule of :mod:`rheostat.analysis.verdict`, from the leading seeds that both have finished: if a seed is
    missing in between, later seeds wait for it, because leaving it out would select among results.

    Args:
        arms: of one task; the others are compared with the first.
        level: confidence of the intervals of single arms.
        margin: the difference of final values below which nothing matters, declared before the runs; None: none was.

    Raises:
        RheostatError: a final value that is not finite.
    """
    notes: list[str] = []
    rows: list[ArmSummary] = []
    finals: list[dict[int, float]] = []
    budgets = {arm.records[0].settings.get("steps") for arm in arms}
    if len(budgets) > 1:
        notes.append(f"The budgets differ ({', '.join(f'{b:,}' for b in sorted(b for b in budgets if b))} steps): no verdict is given.")
    for index, arm in enumerate(arms):
        done = [record for record in arm.records if record.finished and not record.faults]
        notes += [f"{arm.label}, seed {record.seed}, is not counted: {fault}" for record in arm.records for fault in record.faults]
        notes += [f"{arm.label}: {sentence}" for sentence in dict.fromkeys(note for record in arm.records for note in record.notes)]
        unfinished = tuple(record.seed for record in arm.records if not record.finished)
        if unfinished:
            notes.append(f"{arm.label}: {'seed' if len(unfinished) == 1 else 'seeds'} {', '.join(map(str, unfinished))} not finished.")
        metrics = {record.final_metric for record in done}
        metric = metrics.pop() if len(metrics) == 1 else None
        values = {record.seed: float(record.final) for record in done} if metric else {}
        finals.append(values)
        verdict = None
        if index and metric is not None and metric == rows[0].metric and len(budgets) == 1:
            matched = leading(values, finals[0])
            if matched:
                mine, first = ({seed: found[seed] for seed in matched} for found in (values, finals[0]))
                verdict = judge(mine, first, margin=margin)
        rows.append(
            ArmSummary(
                label=arm.label,
                method=arm.method,
                seeds=tuple(record.seed for record in done),
                unfinished=unfinished,
                metric=metric,
                final=_interval(list(values.values()), level),
                mean_over_training=_interval([_area(record) for record in done], level),
                speed=_median([record.speed for record in arm.records]),
                sampling_error=_interval([_average(record, SAMPLING_ERROR) for record in done], level),
                verdict=verdict,
            )
        )
        if verdict is not None and verdict.flags:
            notes.append(f"{arm.label}: {' and '.join(verdict.flags)}, so a false verdict is more likely than the rule promises.")
        notes += [f"{arm.label}: {sentence}" for sentence in dict.fromkeys(_warnings(arm))]
        notes += _nonfinite_notes(arm)
    tested = {
        row.label: over_looks(row.verdict.p_value, row.verdict.difference.level)
        for row in rows
        if row.verdict is not None and row.verdict.look is not None
    }
    adjusted = holm(tested)
    return [replace(row, family_p=adjusted.get(row.label)) for row in rows], notes


def leading(a: Mapping[int, float], b: Mapping[int, float]) -> list[int]:
    """Seeds that both sides have, in order, up to the first that only one has or that neither has."""
    found: list[int] = []
    for seed in sorted(set(a) | set(b)):
        if seed not in a or seed not in b or (found and seed != found[-1] + 1):
            break
        found.append(seed)
    return found


def verdict_text(verdict: Verdict) -> str:
    """``better``, ``worse``, ``no relevant difference``, or ``undecided`` with the next look; a pilot decides nothing."""
    if verdict.look is None:
        return f"pilot, decides nothing; first look at {RULE.looks[0]} seeds"
    words = {"supported": "better", "refuted": "worse"}
    if verdict.outcome != "undecided":
        return words.get(verdict.outcome, verdict.outcome)
    return "undecided; every look is used" if verdict.next_look is None else f"undecided; next look at {verdict.next_look} seeds"


def final_label(rows: Sequence[ArmSummary]) -> str:
    """Heading of the column of final values."""
    metric = next((row.metric for row in rows if row.metric), None)
    if metric is None:
        return "Final performance"
    return FINAL_LABELS.get(metric, f"{describe(metric).label}, last tenth")


def _warnings(arm: Arm) -> list[str]:
    """The runs' warnings about their corrections, without the numbers that differ between seeds."""
    said = [sentence for record in arm.records for sentence in record.summary.get("warnings", [])]
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


def _interval(values: Sequence[float], level: float) -> Interval | None:
    """None unless every seed has the number."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return interval_of(values, iqm, level=level)


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bounds(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_number(interval.low), _number(interval.high)]
