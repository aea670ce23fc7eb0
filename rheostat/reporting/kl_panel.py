"""Reward or wins against the distance from the reference: how studies of preferences are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rheostat.reporting.plots import PALETTE

Curves = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""By arm and seed: columns of equal length."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")


def kl_panel(
    axis: Any, curves: Curves, *, y: str, label: str, x: str = "kl_to_reference", x_label: str = "KL to the reference, nats"
) -> None:
    """A line per arm through its measurements: means over seeds of both columns.

    Args:
        axis: of matplotlib.
        curves: with the columns ``x`` and ``y``, as many measurements in every seed of an arm.
        y: the column above.
        label: what it is called.
        x: the column along.
        x_label: what that is called.
    """
    for place, (arm, seeds) in enumerate(curves.items()):
        along, above = (np.mean([columns[name] for columns in seeds.values()], axis=0) for name in (x, y))
        style = {"color": PALETTE[place % len(PALETTE)], "marker": MARKS[place % len(MARKS)], "markersize": 4, "linewidth": 1.2}
        axis.plot(along, above, label=arm, **style)
    axis.set(xlabel=x_label, ylabel=label)
    if x == "kl_to_reference":
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set_xlim(left=0)
    axis.legend(fontsize=7)
