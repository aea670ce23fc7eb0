"""The picture of a sweep: results and the meter against the dial."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rheostat.analysis.statistics import Interval
from rheostat.analysis.summaries import final_label
from rheostat.experiments.sweep import METER, Sweep, meter_of
from rheostat.reporting.plots import PALETTE, STYLE, save_both


def draw_sweep(sweep: Sweep, path: Path | None = None) -> Path:
    """Final performance, mean over training and the KL to the sampler against the dial; PNG, with an SVG beside it."""
    path = path or sweep.directory / "sweep.png"
    summaries = sweep.comparison.summaries
    panels: list[tuple[str, list[Interval | None], list[list[float]]]] = [
        (final_label(summaries), [row.final for row in summaries], [list(arm.finals()) for arm in _finished(sweep)]),
        ("Mean over training", [row.mean_over_training for row in summaries], []),
        ("KL to the behaviour policy", [meter_of(arm.records, METER["kl"]) for arm in sweep.comparison.arms], []),
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.4), layout="constrained", dpi=150)
        seeds = max(len(row.seeds) for row in summaries)
        title = f"{sweep.method} on {sweep.comparison.task}: dial.{sweep.dial}, {seeds} seeds, 95 % t intervals"
        figure.suptitle(title, x=0.008, ha="left", fontsize=11, fontweight="bold", color="#222222")
        places = np.arange(len(sweep.values))
        for axes, colour, (label, intervals, points) in zip(figure.subplots(1, 3), PALETTE, panels, strict=False):
            known = [(x, interval) for x, interval in zip(places, intervals, strict=True) if interval is not None]
            axes.plot([x for x, _ in known], [i.estimate for _, i in known], color=colour, lw=1.4, marker="o", ms=4)
            for x, interval in known:
                if math.isfinite(interval.low) and math.isfinite(interval.high):
                    axes.plot([x, x], [interval.low, interval.high], color=colour, lw=2.2, alpha=0.55)
            for x, values in zip(places, points, strict=False):
                axes.plot([x + 0.12] * len(values), values, ".", color="#777777", ms=3.5)
            axes.set_xticks(places, [f"{value:g}" for value in sweep.values])
            axes.set(title=label, xlabel=f"dial.{sweep.dial}")
            axes.margins(x=0.08)
        return save_both(figure, path)[0]


def _finished(sweep: Sweep) -> list[Any]:
    return [arm for arm in sweep.comparison.arms if all(record.finished for record in arm.records)]
