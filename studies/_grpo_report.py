"""The GRPO study as tables in the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"GRPO": "#0072b2", "RLOO": "#009e73", "DAPO": "#d55e00", "GSPO": "#cc79a7", "REINFORCE++": "#e69f00", "RFT": "#666666"}
"""Okabe and Ito's palette."""
PANELS = {"accuracy": "held-out accuracy", "entropy": "entropy (nats per token)", "length": "completion length (tokens)"}


def table(study: dict[str, Any]) -> None:
    """Print the arms, then every condition with its numbers and verdict."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    columns = ("start_accuracy", "final_accuracy", "mean_accuracy_over_budget", "final_entropy", "final_length", "updates")
    grid = Table("arm", *(name.replace("_", " ") for name in columns), "steps/batch")
    for arm, numbers in study["arms"].items():
        grid.add_row(arm, *(cell(numbers[name]) for name in columns), str(study["setting"]["gradient_steps"][arm]))
    console.print(grid)
    grid = Table("claim", "condition", "found", "verdict")
    for claim in study["claims"]:
        for condition in claim["conditions"]:
            grid.add_row(claim["name"], condition["rule"], found(condition["numbers"]), condition["outcome"])
    console.print(grid)
    console.print("DAPO in training: " + found(study["kept_besides"]))
    console.print("Claims: " + ", ".join(f"{name} {outcome}" for name, outcome in study["verdicts"].items()))


def cell(value: dict[str, Any]) -> str:
    """Mean and interval over seeds."""
    interval = "" if value["low"] is None else f" [{value['low']:.4g}, {value['high']:.4g}]"
    return f"{value['mean']:.4g}{interval}"


def found(numbers: dict[str, Any]) -> str:
    """Plain numbers of a condition on a line; tables of pairs are in the result file."""
    parts = []
    for name, value in numbers.items():
        if name != "pairs" and value is not None:
            parts.append(f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}")
    return ", ".join(parts)


def draw(study: dict[str, Any], path: Path) -> None:
    """Accuracy, entropy and length against generated tokens: means over seeds with 95 % t intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
        for panel, (name, label) in zip(axes, PANELS.items(), strict=True):
            for arm, curves in study["curves"].items():
                grid, centre, half = band(curves, name)
                panel.plot(grid / 1000, centre, color=COLOURS[arm], lw=1.8, label=arm)
                if half is not None:
                    panel.fill_between(grid / 1000, centre - half, centre + half, color=COLOURS[arm], alpha=0.15, lw=0)
            panel.set(xlabel="thousand generated tokens", ylabel=label)
        axes[0].legend(frameon=False, loc="lower right")
        outcome = "; ".join(f"{name}: {value}" for name, value in study["verdicts"].items())
        seeds = len(next(iter(study["curves"].values())))
        figure.suptitle(f"chain-sum, equal generated tokens, {seeds} seeds (bands: 95 % t intervals of the mean)   {outcome}", fontsize=9)
        figure.savefig(path, dpi=130)
    plt.close(figure)


def band(curves: list[dict[str, Any]], name: str) -> tuple[Any, Any, Any]:
    """Mean curve on a common grid of tokens and half the width of its interval (None with one seed)."""
    from scipy.stats import t

    grid = np.linspace(0, min(curve["tokens"][-1] for curve in curves), 80)
    values = np.stack([np.interp(grid, curve["tokens"], curve[name]) for curve in curves])
    if len(curves) < 2:
        return grid, values[0], None
    half = t.ppf(0.975, len(curves) - 1) * values.std(0, ddof=1) / np.sqrt(len(curves))
    return grid, values.mean(0), half
