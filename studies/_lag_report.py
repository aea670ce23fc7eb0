"""The picture of the lag study: final performance against lag, a column per task, and below it what the meter showed meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TOGETHER = ("PPO", "GRPO")
"""The method without a correction, under its name in each task: one colour for both."""
ORDER = ("PPO", "PPO to sampler", "TIS", "CISPO", "IS", "BAPO")
METER = ("meter/ess", "effective sample size")


def draw(result: dict[str, Any], path: Path) -> None:
    """Means over seeds with 95 % t intervals; a method has one colour in every panel."""
    import matplotlib
    from matplotlib.figure import Figure

    from rheostat.reporting.plots import STYLE

    columns = [claim for claim in result["claims"] if "final" in claim["metrics"]]
    seeds = len(columns[0]["seeds"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(columns), 5.4), layout="constrained", dpi=130)
        grid = figure.subplots(2, len(columns), sharex="col", height_ratios=(3, 2), squeeze=False)
        for claim, (above, below) in zip(columns, grid.T, strict=True):
            for label in labels_of(claim):
                draw_line(above, claim, label, [claim["metrics"]["final"][f"{label}, lag {lag}"] for lag in claim["metrics"]["lags"]])
                draw_line(below, claim, label, [meter_of(claim, f"{label}, lag {lag}") for lag in claim["metrics"]["lags"]])
            language = claim["title"].startswith("chain-sum")
            above.set(ylabel="share of right answers" if language else "return of an episode")
            above.set_title(claim["title"].partition(":")[0])
            above.legend(fontsize=7.5, ncols=2, loc="lower left")
            below.set(ylabel=METER[1], xlabel="dial.lag: age of the policy that samples (updates)", ylim=(-0.04, 1.04))
            below.set_xticks(range(len(claim["metrics"]["lags"])), [str(lag) for lag in claim["metrics"]["lags"]])
        title = f"The dial, and what it costs: final performance above, the meter below ({seeds} seeds, 95 % t intervals of the mean)"
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        figure.savefig(path)


def labels_of(claim: dict[str, Any]) -> list[str]:
    """The methods of a claim, in order."""
    return list(dict.fromkeys(arm.rsplit(", lag ", 1)[0] for arm in claim["metrics"]["final"]))


def meter_of(claim: dict[str, Any], arm: str) -> dict[str, Any] | None:
    """The mean over training of the meter's number: its mean and standard error over seeds; None where it was not recorded."""
    rows = claim["curves"].get(arm, {}).values()
    means = [np.nanmean(np.array(row[METER[0]], dtype=float)) for row in rows if row.get(METER[0])]
    if not means:
        return None
    error = float(np.std(means, ddof=1) / len(means) ** 0.5) if len(means) > 1 else None
    return {"mean": float(np.mean(means)), "standard_error": error, "seeds": means}


def draw_line(axes: Any, claim: dict[str, Any], label: str, rows: list[dict[str, Any] | None]) -> None:
    """One method: its means, joined, and their intervals; nothing where a number is missing."""
    from scipy.stats import t

    from rheostat.reporting.plots import DASHES, PALETTE

    if any(row is None for row in rows):
        return
    known = [row for row in rows if row is not None]
    index = 0 if label in TOGETHER else ORDER.index(label)
    centre = np.array([row["mean"] for row in known])
    places = np.arange(len(known)) + 0.05 * (index - len(ORDER) / 2)
    axes.plot(places, centre, color=PALETTE[index], ls=DASHES[index % 4], marker="o", ms=4, lw=1.5, label=label)
    if known[0]["standard_error"] is not None:
        half = np.array([row["standard_error"] * t.ppf(0.975, len(row["seeds"]) - 1) for row in known])
        axes.vlines(places, centre - half, centre + half, color=PALETTE[index], lw=1.6, alpha=0.55)
