"""The tables on a terminal and the picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.reporting.plots import STYLE, save_both
from rheostat.terminal import console, print_table, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rheostat.diagnostics.disagreement.disagreement_result import Disagreement, Matrix, Row, Shown

UP, DOWN, GREY, LIMITED = "#0072B2", "#D55E00", "#E4E4E4", "#F0E442"
"""Okabe and Ito's, distinguishable with any colour vision."""
NOTE = (
    "up, down: shares of all tokens made more, less likely. clipped: gradient cut by the clip. idle: in the loss with weight 0. left out: "
    "masked or filtered. scaled: of those that move, weight per advantage off the method's median. effective: share of tokens that carry "
    "the update. elsewhere: part of the gradient's norm that does not come through log-probabilities."
)


def clear(token: str) -> str:
    """A token in a line of its own: without control characters and line breaks."""
    return visible(token).replace("\n", "⏎").replace(" ", "␣")


def percent(value: float | None) -> str:
    """As a share, and never 0 or 100 % by rounding."""
    if value is None:
        return "–"
    if 0 < value < 0.0005 or 0.9995 < value < 1:
        return "<0.1 %" if value < 0.5 else ">99.9 %"
    return f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """Three digits after the point, or a dash."""
    return "–" if value is None else f"{value + 0.0:.3f}"


METHODS: dict[str, Callable[[Row], str]] = {
    "gradient norm": lambda r: f"{r.gradient_norm:.3g}",
    "up": lambda r: percent(r.tokens.up),
    "down": lambda r: percent(r.tokens.down),
    "clipped": lambda r: percent(r.tokens.clipped),
    "idle": lambda r: percent(r.tokens.idle),
    "left out": lambda r: percent(r.tokens.left_out),
    "scaled": lambda r: percent(r.tokens.scaled),
    "effective": lambda r: percent(r.tokens.effective),
    "elsewhere": lambda r: "–" if r.elsewhere is None else percent(r.elsewhere if r.elsewhere > 1e-4 else 0.0),
    "clips mostly": lambda r: ", ".join(f"{clear(token)} {count}x" for token, count in list(r.mostly.items())[:3]),
}

OPTIONAL = ("up", "down", "clipped", "gradient norm", "elsewhere", "effective", "scaled", "left out", "idle", "clips mostly")
"""Columns that may be left out on a narrow terminal, the most important first."""
MATRIX_COLUMN = 10
"""Columns of the terminal that one number of a matrix takes at most."""


def matrices(found: Disagreement) -> dict[str, tuple[Matrix, Callable[[float | None], str]]]:
    """Title of every matrix, its numbers, and how they are written."""
    unit = "tokens" if found.facts["domain"] == "language" else "steps"
    return {
        "Cosine of the gradients": (found.cosines, number),
        f"Share of {unit} whose weights differ in sign": (found.signs, percent),
        f"Distance of the weights over {unit} (1 - cosine)": (found.distances, number),
    }


def title_of(found: Disagreement) -> str:
    """The batch in a line."""
    facts = found.facts
    unit = "tokens" if facts["domain"] == "language" else "steps"
    title = f"{facts['method']} on {facts['task']}, after {facts['update']} updates: {facts['rows']} rows, {facts['tokens']:,} {unit}"
    if "kl_behaviour_k3" in facts:
        title += f"; KL to the sampler {facts['kl_behaviour_k3']:.3g} nats, effective sample size {facts['ess']:.0%}"
    moves = f"; moved by {facts['steps']} of its own steps, KL {facts['kl_moved']:.3g} nats" if facts["steps"] else ""
    return title + moves


def print_disagreement(found: Disagreement) -> None:
    """Methods, then the three matrices, then the notes; what does not fit is left out, or stands in a table of its own."""
    on = console()
    cells = [[str(place), row.name, *(cell(row) for cell in METHODS.values())] for place, row in enumerate(found.rows, 1)]
    numbers = {"", *METHODS} - {"clips mostly"}
    print_table(title_of(found), ["", "method", *METHODS], cells, numbers=numbers, optional=OPTIONAL, lines=False, on=on)
    on.print(NOTE, markup=False, highlight=False, style="dim")
    named = max(len(row.name) for row in found.rows)
    together = max(1, (on.width - named - 8) // MATRIX_COLUMN)
    for title, (values, cell) in matrices(found).items():
        for first in range(0, len(found.rows), together):
            places = list(map(str, range(1, len(found.rows) + 1)))[first : first + together]
            rows = [
                [str(place), row.name, *map(cell, line[first : first + together])]
                for place, (row, line) in enumerate(zip(found.rows, values, strict=True), 1)
            ]
            print_table(title, ["", "method", *places], rows, numbers={"", *places}, lines=False, on=on)
    for note in found.notes:
        on.print(note, markup=False, highlight=False, soft_wrap=True)


def draw(found: Disagreement, stem: Path) -> list[Path]:
    """Heat maps of cosines and signs, and below the most disputed rollouts, one line per method; PNG and SVG beside each other.

    Raises:
        RheostatError: a place that cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    count = len(found.rows)
    side, strip = 1.0 + 0.34 * count, 0.75 + 0.21 * (count + 1)
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "text.parse_math": False}):
        figure = Figure(figsize=(11, 0.6 + side + strip * len(found.shown) + 0.3), layout="constrained", dpi=150)
        figure.suptitle(
            title_of(found).replace("; moved", ";\nmoved"), x=0.008, ha="left", fontsize=9.5, fontweight="bold", color="#222222"
        )
        grid = figure.add_gridspec(1 + len(found.shown), 2, height_ratios=[side, *[strip] * len(found.shown)])
        every = list(matrices(found).items())
        names = [row.name for row in found.rows]
        _heat(figure.add_subplot(grid[0, 0]), *every[0], names, "RdBu", (-1, 1))
        _heat(figure.add_subplot(grid[0, 1]), *every[1], names, "Greys", (0, 1))
        full = {name: full_colour(found, name) for name in names}
        unit = "token" if found.facts["domain"] == "language" else "step"
        for place, shown in enumerate(found.shown, 1):
            _strip(figure.add_subplot(grid[place, :]), shown, names, full, unit)
        _legend(figure, unit)
        return save_both(figure, stem)


def _heat(axes: Axes, title: str, matrix: Any, names: list[str], colours: str, limits: tuple[float, float]) -> None:
    values, cell = matrix
    numbers = [[float("nan") if value is None else value for value in line] for line in values]
    axes.imshow(numbers, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    small = 7.5 if len(names) <= 8 else 6
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            dark = value is not None and (abs(value) if limits[0] < 0 else value) > 0.6
            text = "–" if value is None else f"{100 * value:.0f} %" if cell is percent else f"{value + 0.0:.2f}"
            axes.text(x, y, text, ha="center", va="center", fontsize=small, color="white" if dark else "#222222")
    axes.set_yticks(range(len(names)), [f"{_short(name)}  {place}" for place, name in enumerate(names, 1)])
    axes.set_xticks(range(len(names)), [str(place) for place in range(1, len(names) + 1)])
    axes.tick_params(length=0, labelcolor="#222222")
    axes.set_title(title)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(name: str, longest: int = 34) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def full_colour(found: Disagreement, name: str) -> float:
    """Weight at which a method's tokens have their full colour: the 95 % quantile."""
    sizes = found.weight(name).abs()
    sizes = sizes[sizes > 0]
    return float(sizes.quantile(0.95)) if len(sizes) else 1.0


def strength(weight: float, full: float) -> float:
    """Colour of a weight in [-1, 1]; every weight other than 0 is visible."""
    share = max(-1.0, min(1.0, weight / full))
    return share if share == 0 else (0.15 + 0.85 * abs(share)) * (1 if share > 0 else -1)


def _strip(axes: Axes, shown: Shown, names: list[str], full: dict[str, float], unit: str) -> None:
    from matplotlib.patches import Rectangle

    for x, token in enumerate(shown.tokens):
        axes.text(x + 0.5, -0.5, clear(token)[:5], ha="center", va="center", fontsize=6.5, family="monospace", color="#222222")
    for y, name in enumerate(names):
        for x, (weight, state) in enumerate(zip(shown.weights[name], shown.states[name], strict=True)):
            share = strength(weight, full[name])
            colour, alpha = (UP, share) if share > 0 else (DOWN, -share) if share < 0 else (GREY, 1.0 if state == "idle" else 0.0)
            axes.add_patch(Rectangle((x + 0.04, y + 0.08), 0.92, 0.84, facecolor=colour, alpha=alpha, linewidth=0))
            if state in ("clipped", "left out"):
                mark, ink = ("/", "#222222") if state == "clipped" else ("×", "#999999")
                axes.text(x + 0.5, y + 0.5, mark, ha="center", va="center", fontsize=6.5, color=ink)
    axes.set(xlim=(0, max(len(shown.tokens), 24)), ylim=(len(names), -1))
    axes.set_yticks([y + 0.5 for y in range(len(names))], [f"{_short(name)}  {place}" for place, name in enumerate(names, 1)])
    axes.set_xticks([])
    axes.tick_params(length=0, labelcolor="#222222")
    for spine in axes.spines.values():
        spine.set_visible(False)
    cut = f", {unit}s {shown.first + 1} to {shown.first + len(shown.tokens)} of {shown.total}" if len(shown.tokens) < shown.total else ""
    axes.set_title(f"Row {shown.row} ({shown.source}), reward {shown.reward:.4g}{cut}: {_short(visible(shown.prompt).strip(), 60)}")


def _legend(figure: Any, unit: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks = [
        Patch(color=UP, label=f"{unit} made more likely"),
        Patch(color=DOWN, label="less likely"),
        Patch(color=GREY, label="idle (weight 0)"),
        Line2D([], [], linestyle="", marker=(2, 0, -30), color="#222222", label="clipped"),
        Line2D([], [], linestyle="", marker="x", color="#999999", label="left out"),
    ]
    figure.legend(handles=marks, loc="outside lower left", ncols=5, fontsize=8)
