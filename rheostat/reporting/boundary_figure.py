"""Two language models on the same problems: a table, and pass@k against k with intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.experiments.boundary import Boundary
from rheostat.reporting.plots import PALETTE, STYLE, save_both
from rheostat.terminal import print_table


def print_boundary(found: Boundary) -> None:
    """The numbers, with the change and its 95 % interval."""
    cells = [(row["result"], _shown(row.get("before")), _shown(row.get("after")), *_change(row)) for row in found.rows()]
    title = f"{found.prompts} problems, {found.samples} completions of each by both models"
    numbers = ["before", "after", "change or share"]
    print_table(title, ["result", *numbers, "95 % interval"], cells, numbers=numbers)
    spread = [f"{each.low:.1f} to {each.high:.1f}: {each.problems} problems, {each.change:+.3f}" for each in found.coverage.deciles]
    print("Mean change by the rate of success before: " + "; ".join(spread) + ".")
    if found.interference is None:
        print("No interference is measured: the first model has no right solution.")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _change(row: dict[str, Any]) -> tuple[str, str]:
    estimate = row["estimate"]
    return (
        "unknown" if math.isnan(estimate) else f"{estimate:.3f}",
        f"[{row['low']:.3f}, {row['high']:.3f}]" if "low" in row else "",
    )


def draw_boundary(found: Boundary, folder: Path, names: tuple[str, str]) -> list[Path]:
    """Write ``boundary.png`` and ``boundary.svg``.

    Args:
        found: the measurements.
        folder: made if need be.
        names: of the two models, for the legend.

    Raises:
        RheostatError: a place that cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RheostatError(f"Could not write to {folder}: {error}.") from error
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained", dpi=150)
        axes = figure.add_subplot()
        for name, curve, colour in zip(names, (found.coverage.before, found.coverage.after), PALETTE, strict=False):
            ks = list(curve)
            axes.fill_between(ks, [curve[k].low for k in ks], [curve[k].high for k in ks], alpha=0.15, color=colour, linewidth=0)
            axes.plot(ks, [curve[k].estimate for k in ks], marker="o", markersize=4, color=colour, label=name.replace("$", r"\$"))
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_xlabel("completions per problem (k)")
        axes.set_ylabel("pass@k")
        axes.set_ylim(0, 1)
        axes.set_title(f"{found.prompts} problems, 95 % intervals")
        axes.legend(loc="upper left")
        return save_both(figure, folder / "boundary")
