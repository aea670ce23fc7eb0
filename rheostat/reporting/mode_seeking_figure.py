"""Mode-seeking against mode-covering as a picture: mass over steps on a softmax, and where four learners on a bandit put theirs."""

from __future__ import annotations

from typing import Any

import numpy as np

from rheostat.diagnostics.theorems import Picture
from rheostat.reporting.plots import PALETTE

SIDES = {"forward": ("forward KL (likelihood)", PALETTE[1]), "reverse": ("reverse KL", PALETTE[0])}
FLOOR = -4.0
"""The smallest shown logarithm (base 10) of a probability."""


def draw_mode_seeking(figure: Any, found: Picture) -> None:
    """Draw into a figure: the softmax and the last distributions above, probability over actions and steps below."""
    figure.suptitle(found.title, x=0.008, ha="left", fontsize=11, fontweight="bold", color="#222222")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.0, 1.05))
    left, right = upper.subplots(1, 2)
    _softmax(left, found)
    _last(right, found)
    bandit = found.facts["bandit"]
    axes = lower.subplots(1, len(bandit), sharey=True)
    image = None
    for place, (axis, (name, rows)) in enumerate(zip(np.ravel(axes), bandit.items(), strict=True)):
        image = _heat(axis, name, rows, found)
        axis.set_ylabel("gradient steps" if not place else "")
    bar = lower.colorbar(image, ax=axes, shrink=0.9, pad=0.01)
    bar.set_label("log10 probability")


def _softmax(axis: Any, found: Picture) -> None:
    """Mass of the heavy and of the wanted bin over steps, for both directions."""
    steps = [row["step"] for row in found.rows]
    for name, (label, colour) in SIDES.items():
        axis.plot(steps, [row[f"{name}_heavy"] for row in found.rows], color=colour, linewidth=1.6, label=f"{label}: heavy bin")
        axis.plot(steps, [row[f"{name}_wanted"] for row in found.rows], color=colour, linewidth=1.4, linestyle="--", label="wanted bin")
        axis.axvline(found.facts["steps_to_empty"][name], color=colour, linewidth=0.8, linestyle=":")
    axis.set(xlabel="gradient steps", ylabel="probability", ylim=(0, 1), xlim=(0, steps[-1]))
    axis.set_title("Ten bins (dotted: heavy bin below a tenth)")
    axis.legend(loc="center right", fontsize=7)


def _last(axis: Any, found: Picture) -> None:
    """The data policy, the reward, and every learner's last distribution."""
    facts = found.facts
    actions = range(len(facts["data"]))
    axis.fill_between(actions, facts["data"], color="#bbbbbb", linewidth=0, label="data policy")
    scale = max(facts["data"])
    axis.plot(actions, [scale * paid for paid in facts["kernel"]], color="#222222", linewidth=1.0, linestyle="--", label="reward, scaled")
    for colour, (name, rows) in zip(PALETTE, facts["bandit"].items(), strict=False):
        axis.plot(actions, rows[-1], color=colour, linewidth=1.2, label=name)
    axis.set(xlabel="action", yscale="log", ylim=(10**FLOOR, 1.2), ylabel="probability")
    axis.set_title("The bandit whose peak is away, at the end")
    axis.legend(loc="upper left", fontsize=7, ncols=2)


def _heat(axis: Any, name: str, rows: list[list[float]], found: Picture) -> Any:
    """Probability of every action over steps."""
    shown = np.log10(np.maximum(np.array(rows), 10**FLOOR))
    last = found.facts["every"] * (len(rows) - 1)
    image = axis.imshow(
        shown, aspect="auto", origin="lower", extent=(-0.5, shown.shape[1] - 0.5, 0, last), vmin=FLOOR, vmax=0.0, cmap="viridis"
    )
    axis.set_title(name, fontsize=9)
    axis.set_xlabel("action")
    axis.grid(False)
    return image
