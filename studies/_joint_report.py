"""The picture of the joint study: accuracy against both kinds of tokens, and every arm's difference to GRPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PANELS = {"generated_tokens": "thousand generated tokens", "learner_tokens": "thousand learner tokens"}
PLAIN = "GRPO"


def draw(result: dict[str, Any], path: Path) -> None:
    """Mean curves over seeds; below them means with 95 % intervals of the paired difference."""
    import matplotlib
    from matplotlib.figure import Figure

    from rheostat.reporting.plots import DASHES, PALETTE, STYLE

    claims = {claim["name"]: claim for claim in result["claims"]}
    first = result["claims"][0]
    names = list(first["curves"])
    looks = {arm: {"color": PALETTE[i % len(PALETTE)], "ls": DASHES[i // len(PALETTE)]} for i, arm in enumerate(names)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.5, 4.2), layout="constrained", dpi=130)
        left, middle, right = figure.subplots(1, 3, sharey=False, width_ratios=(1, 1, 0.9))
        for axes, (axis, label) in zip((left, middle), PANELS.items(), strict=True):
            end = min(curve[axis][-1] for curves in first["curves"].values() for curve in curves.values())
            for arm, curves in first["curves"].items():
                last = min(curve[axis][-1] for curve in curves.values())
                grid = np.linspace(0, last, 100)
                centre = np.mean([np.interp(grid, curve[axis], curve["accuracy"]) for curve in curves.values()], axis=0)
                axes.plot(grid / 1000, centre, lw=1.6, label=arm, **looks[arm])
            axes.axvline(end / 1000, color="#888888", lw=0.8)
            axes.set(xlabel=label, ylabel="held-out accuracy")
        figure.legend(*left.get_legend_handles_labels(), fontsize=7, ncols=len(names), loc="outside lower left", columnspacing=1.0)
        compared = [arm for arm in names if arm in claims]
        for row, arm in enumerate(reversed(compared)):
            for shift, filled, condition in zip((0.14, -0.14), (True, False), claims[arm]["conditions"], strict=True):
                numbers = condition["numbers"]
                colour = looks[arm]["color"]
                if numbers["low"] is not None and numbers["high"] is not None:
                    right.plot([numbers["low"], numbers["high"]], [row + shift] * 2, color=colour, lw=1.6)
                right.plot(numbers["difference"], row + shift, "o", ms=5, color=colour, mfc=colour if filled else "white")
        right.axvline(0, color="#888888", lw=0.8)
        right.set_yticks(range(len(compared)), list(reversed(compared)))
        right.set(xlabel=f"accuracy minus {PLAIN}'s at equal tokens\n(filled: generated, open: learner)")
        seeds = len(first["seeds"])
        figure.suptitle(
            f"{seeds} matched seeds; intervals: 95 %, paired; vertical line: the budget all arms reach",
            fontsize=9,
            x=0.01,
            ha="left",
        )
        figure.savefig(path)
