"""The panel of what a policy learns in context: the return of the first, second, ... episode of a task, at the last measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rheostat.analysis.format import format_number
from rheostat.analysis.metrics import BY_EPISODE, GROUPS
from rheostat.analysis.records import Arm, Record

MOST_ROWS = 12
"""Of the table below the chart."""


def by_episode(record: Record) -> dict[int, float]:
    """Mean return of an episode of a trial by its number from 1: of the final evaluation, else of the last measurement; empty without."""
    found: dict[str, float] = {name: float(value) for name, value in record.summary.items() if name.startswith(BY_EPISODE)}
    if not found:
        measured = {name: column[np.isfinite(column)] for name, column in record.columns.items() if name.startswith(BY_EPISODE)}
        found = {name: float(column[-1]) for name, column in measured.items() if len(column)}
    return dict(sorted((int(name.rpartition("_")[2]), value) for name, value in found.items()))


def in_context(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """The panel, a line per arm through means over its seeds; none where no run has been measured so."""
    curves: list[tuple[int, dict[int, float]]] = []
    for index, arm in enumerate(arms):
        seeds = [found for record in arm.records if (found := by_episode(record))]
        if seeds:
            shared = sorted(set.intersection(*(set(found) for found in seeds)))
            curves.append((index, {number: float(np.mean([found[number] for found in seeds])) for number in shared}))
    curves = [(index, curve) for index, curve in curves if curve]
    if not curves:
        return []
    numbers = sorted({number for _, curve in curves for number in curve})
    rows = [numbers[place] for place in sorted({round(each) for each in np.linspace(0, len(numbers) - 1, min(MOST_ROWS, len(numbers)))})]
    ends = [
        f"{arms[index].label} goes from {format_number(curve[min(curve)])} in the first episode to {format_number(curve[max(curve)])} "
        f"in episode {max(curve)}"
        for index, curve in curves
    ]
    return [
        {
            "key": "in_context",
            "label": "Return by episode in context",
            "help": "Mean return of the first, second, ... episode of a new task, while the weights stay as they are",
            "group": GROUPS[0],
            "folded": False,
            "averaged": 1,
            "table": {
                "along": "episode",
                "columns": [arms[index].label for index, _ in curves],
                "rows": [
                    {"budget": str(row), "cells": [format_number(curve[row]) if row in curve else "–" for _, curve in curves]}
                    for row in rows
                ],
            },
            "description": f"Line chart of the return by episode in context: {'; '.join(ends)}.",
            "chart": {
                "label": "Return by episode in context",
                "axis": "Episode in context",
                "series": [{"arm": index, "x": {"own": list(curve)}, "y": list(curve.values())} for index, curve in curves],
            },
        }
    ]
