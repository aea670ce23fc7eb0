"""The picture of the GRPO study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"GRPO": "#0072b2", "RLOO": "#009e73", "DAPO": "#d55e00", "GSPO": "#cc79a7", "REINFORCE++": "#e69f00", "RFT": "#666666"}
"""Okabe and Ito's palette."""
PANELS = {"accuracy": "held-out accuracy", "entropy": "entropy (nats per token)", "completion_length": "completion length (tokens)"}


def draw(study: dict[str, Any], path: Path) -> None:
    """Accuracy, entropy and length against generated tokens: means over seeds with 95 % t intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves_of = study["claims"][0]["curves"]
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
        for panel, (name, label) in zip(axes, PANELS.items(), strict=True):
            for arm, curves in curves_of.items():
                grid, centre, half = band(list(curves.values()), name)
                panel.plot(grid / 1000, centre, color=COLOURS[arm], lw=1.8, label=arm)
                if half is not None:
                    panel.fill_between(grid / 1000, centre - half, centre + half, color=COLOURS[arm], alpha=0.15, lw=0)
            panel.set(xlabel="thousand generated tokens", ylabel=label)
        axes[0].legend(frameon=False, loc="lower right")
        outcome = "; ".join(f"{name}: {value}" for name, value in study["verdicts"].items())
        seeds = len(next(iter(curves_of.values())))
        figure.suptitle(f"chain-sum, equal generated tokens, {seeds} seeds (bands: 95 % t intervals of the mean)   {outcome}", fontsize=9)
        figure.savefig(path, dpi=130)
    plt.close(figure)


def band(curves: list[dict[str, Any]], name: str) -> tuple[Any, Any, Any]:
    """Mean curve on a common grid of tokens and half the width of its interval (None with one seed)."""
    from scipy.stats import t

    grid = np.linspace(0, min(curve["steps"][-1] for curve in curves), 80)
    values = np.stack([np.interp(grid, curve["steps"], curve[name]) for curve in curves])
    if len(curves) < 2:
        return grid, values[0], None
    half = t.ppf(0.975, len(curves) - 1) * values.std(0, ddof=1) / np.sqrt(len(curves))
    return grid, values.mean(0), half
