"""The picture of the lag study: final performance against lag, a panel per task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def draw(result: dict[str, Any], path: Path) -> None:
    """Means over seeds with 95 % t intervals."""
    import matplotlib
    from matplotlib.figure import Figure
    from scipy.stats import t

    from rheostat.reporting.plots import DASHES, PALETTE, STYLE

    panels = [claim for claim in result["claims"] if "final" in claim["metrics"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2 * len(panels), 3.9), layout="constrained", dpi=130)
        for axes, claim in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            lags = claim["metrics"]["lags"]
            labels = list(dict.fromkeys(arm.rsplit(", lag ", 1)[0] for arm in claim["metrics"]["final"]))
            for index, label in enumerate(labels):
                rows = [claim["metrics"]["final"][f"{label}, lag {lag}"] for lag in lags]
                centre = np.array([row["mean"] for row in rows])
                places = np.arange(len(lags)) + 0.05 * (index - len(labels) / 2)
                axes.plot(places, centre, color=PALETTE[index], ls=DASHES[index % 4], marker="o", ms=4, lw=1.5, label=label)
                if rows[0]["standard_error"] is not None:
                    half = np.array([row["standard_error"] * t.ppf(0.975, len(row["seeds"]) - 1) for row in rows])
                    axes.vlines(places, centre - half, centre + half, color=PALETTE[index], lw=1.6, alpha=0.55)
            axes.set_xticks(range(len(lags)), [str(lag) for lag in lags])
            axes.set(xlabel="lag (policy updates)", ylabel="accuracy" if "chain-sum" in claim["title"] else "evaluation return")
            axes.set_title(claim["title"].partition(":")[0])
            axes.legend(fontsize=7.5, ncols=2, loc="lower left")
        seeds = len(panels[0]["seeds"])
        figure.suptitle(
            f"Final performance of the present policy, {seeds} seeds, 95 % t intervals of the mean", fontsize=9, x=0.01, ha="left"
        )
        figure.savefig(path)
