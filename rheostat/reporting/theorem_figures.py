"""Theorems of the exact laboratory on the terminal and as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rheostat.diagnostics.theorems import Picture
from rheostat.errors import RheostatError
from rheostat.json_text import dumps
from rheostat.reporting.mode_seeking_figure import draw_mode_seeking
from rheostat.reporting.plots import PALETTE, STYLE, save_both
from rheostat.terminal import print_table


def print_theorem(found: Picture) -> None:
    """The numbers as a table, and the theorem below it."""
    columns = [name.replace("_", " ") for name in found.rows[0]]
    print_table(found.title, columns, [[f"{value:.4g}" for value in row.values()] for row in found.rows], numbers=columns)
    print(f"{found.says} Source: {found.source}.")


def save_theorem(found: Picture, folder: Path) -> list[Path]:
    """Write ``NAME.json``, ``NAME.png`` and ``NAME.svg``.

    Args:
        found: the numbers.
        folder: made if need be.

    Returns:
        The files.

    Raises:
        RheostatError: a place that cannot be written.
    """
    path = folder / f"{found.name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps(found.to_json(), indent=2))
    except OSError as error:
        raise RheostatError(f"Could not write to {folder}: {error}.") from error
    return [path, *draw_theorem(found, folder / found.name)]


def draw_theorem(found: Picture, stem: Path) -> list[Path]:
    """The picture as PNG and SVG beside each other.

    Raises:
        RheostatError: a place that cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        height, draw = (7.4, draw_mode_seeking) if found.name == "mode-seeking" else (3.9, panels_of)  # it has two rows of panels
        figure = Figure(figsize=(9.6, height), layout="constrained", dpi=150)
        draw(figure, found)
        return save_both(figure, stem)


def panels_of(figure: Any, found: Picture) -> None:
    """Draw a theorem's two panels and its title into a figure, or a part of one."""
    panels = {"amplification": _amplification, "exploration": _exploration, "completeness": _completeness}[found.name]
    figure.suptitle(found.title, x=0.008, ha="left", fontsize=11, fontweight="bold", color="#222222")
    panels(figure.subplots(1, 2), found)


def _column(found: Picture, name: str) -> list[float]:
    return [row[name] for row in found.rows]


def _amplification(axes: Any, found: Picture) -> None:
    left, right = axes
    facts, x = found.facts, _column(found, "amplification")
    line = [0.0, 1.05 * max(x)]
    left.plot(line, [facts["slope"] * each for each in line], color="#222222", linewidth=1.0, label="large n, exact")
    n = facts["samples"]
    left.plot(x, _column(found, "exact_median"), "D", color=PALETTE[0], markersize=5, label=f"n = {n:,}, exact")
    measured = _column(found, "measured_median")
    left.plot(x, measured, "o", color=PALETTE[1], markersize=3.5, label=f"n = {n:,}, {facts['repeats']} data sets")
    left.set(xlabel="1 / sqrt(1 - beta²)", ylabel="median Bellman error × sqrt(n)", xlim=(0, None), ylim=(0, None))
    left.set_title("The error of the minimax estimate")
    left.legend(loc="upper left")
    share, curve = _column(found, "share"), facts["curve"]
    right.axhline(1.0, color="#222222", linewidth=1.0)
    for name, mark, colour, label in (
        ("beta", "o", PALETTE[0], "beta (minimax and LSTD need it below 1)"),
        ("radius", "s", PALETTE[1], "spectral radius (fitted Q needs it below 1)"),
    ):
        right.plot(curve["share"], curve[name], "-", color=colour, linewidth=1.4, label=label)
        right.plot(share, _column(found, name), mark, color=colour, markersize=4)
    right.set(xlabel="share of state 1 in the data", xscale="log", ylim=(0, None))
    right.set_title("Two different conditions")
    right.legend(loc="lower right")


def _exploration(axes: Any, found: Picture) -> None:
    left, right = axes
    x = _column(found, "horizon")
    left.plot(x, _column(found, "popler"), "-", color=PALETTE[0], label="POPLER: core and petals, exact")
    left.plot(x, _column(found, "popler_measured"), "o", color=PALETTE[0], markersize=5, label=f"measured, {found.facts['repeats']} runs")
    left.plot(x, _column(found, "uniform"), "--", color=PALETTE[1], label="uniform actions, exact")
    left.plot(x, _column(found, "core"), ":", color=PALETTE[2], label="core alone, exact")
    left.set(xlabel="horizon H", ylabel="probability of finding the best policy", ylim=(-0.02, 1.04), xticks=x)
    left.set_title("Success at equal episodes")
    left.legend(loc="center right")
    right.plot(x, _column(found, "episodes"), "o-", color=PALETTE[0], markersize=4, label="episodes given to all")
    right.plot(x, [2.0**h for h in x], "s--", color=PALETTE[1], markersize=4, label="2^H: one right episode by chance")
    right.plot(x, _column(found, "policies"), "^:", color=PALETTE[2], markersize=4, label="policies in the class")
    right.set(xlabel="horizon H", yscale="log", xticks=x)
    right.set_title("What it costs")
    right.legend(loc="upper left")


def _completeness(axes: Any, found: Picture) -> None:
    left, right = axes
    x, facts = _column(found, "rollouts"), found.facts
    styles = {"incomplete": ("two policies", PALETTE[1]), "complete": ("all maps: complete", PALETTE[0])}
    for name, (label, colour) in styles.items():
        left.axhline(facts["limit"][name], color=colour, linewidth=1.0, linestyle="--")
        bars = [1.96 * row[f"{name}_error"] for row in found.rows]
        left.errorbar(x, _column(found, name), bars, fmt="o-", color=colour, markersize=4, linewidth=1.4, label=label)
        right.plot(facts["by_bias"]["bias"], facts["by_bias"][name], ".-", color=colour, label=label)
    left.set(xlabel="rollouts per layer", ylabel="best member - policy returned", xscale="log", ylim=(-0.03, 0.6))
    left.set_title(f"More rollouts (dashed: exact limit; {facts['repeats']} runs)")
    left.legend(loc="center right")
    right.set(xlabel="share of resets at the poor road", ylim=(-0.03, 0.6), xlim=(0, 1))
    right.set_title("Exact action values, other resets")
    right.legend(loc="center left")
