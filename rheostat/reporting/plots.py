"""Figures for papers and for the run directory, as PNG or SVG through matplotlib (no display needed)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.analysis.curves import LEAST_SEEDS, Curve, arm_curve
from rheostat.analysis.metrics import AT_THE_END, AXES, METER, TIDY, Metric, describe, ordered
from rheostat.analysis.records import Arm, Record, group_arms, read_record
from rheostat.errors import RheostatError, unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rheostat.experiments.comparison import Comparison
    from rheostat.training.run import Run

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C5C")
"""Okabe and Ito's colours, distinguishable with any colour vision; line styles change when they run out."""
DASHES = ("-", "--", ":", "-.")
FORMATS = (".png", ".svg", ".pdf")

HIDDEN = frozenset(
    {"episode_length", "gradient_steps", "learning_rate", "behaviour_gradient_steps", "behaviour_clip_fraction"}
    | {"evaluation_deviation", "evaluation_length", "evaluation_episodes", "evaluation_trials"}
    | {"stage", "context_steps", "context_episodes", "judged_networks", "trained_networks", *AT_THE_END}
)
"""Left out of the run's picture, as is the meter beyond its five numbers (the report has them)."""

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "rheostat",
}


def plot_run(run: Run | Record | str | Path, path: str | Path) -> Path:
    """Draw one run: performance first, then losses and the meter, where there are any.

    Args:
        run: a run, its record or its directory.
        path: the picture; its suffix (.png, .svg or .pdf) is the format.

    Returns:
        The path.

    Raises:
        RheostatError: another suffix, no run there, or a place that cannot be written.
    """
    record = _record(run)
    metrics = _panels(record)
    arm = Arm(record.method, (record,))
    state = "" if record.finished else f", {record.steps:,} of {record.settings.get('steps', 0):,} steps so far"
    return _small_multiples([arm], metrics, f"{record.method} on {record.task}, seed {record.seed}{state}", "steps", path, legend=False)


def plot_comparison(comparison: Comparison | Sequence[Record], path: str | Path, *, x: str = "steps", metric: str | None = None) -> Path:
    """Draw the arms of a comparison with 95 % t bands over seeds: performance large, the meter below it.

    Args:
        comparison: a comparison, or the records of its runs (one task).
        path: the picture; its suffix (.png, .svg or .pdf) is the format.
        x: the budget to draw against: steps, updates, gradient_steps, seconds, ...
        metric: draw this one only.

    Raises:
        RheostatError: no such axis or metric, several tasks, or a place that cannot be written.
    """
    records = comparison if isinstance(comparison, Sequence) else comparison.records
    tasks = group_arms(list(records))
    if len(tasks) != 1:
        raise RheostatError(f"A figure shows one task, got {len(tasks)} ({', '.join(tasks)}): draw one figure for each.")
    (task, arms), *_ = tasks.items()
    if x not in {axis.key for axis in AXES}:
        raise unknown("axis", x, (axis.key for axis in AXES))
    everything = ordered(key for arm in arms for record in arm.records for key in record.metrics)
    if metric is not None:
        chosen = [one for one in everything if one.key == metric]
        if not chosen:
            raise unknown("metric", metric, (one.key for one in everything))
    else:
        headline = arms[0].records[0].headline
        beside = {"episode_return", *TIDY} if headline == "evaluation_return" else set(TIDY)
        chosen = [one for one in everything if one.key == headline] + [one for one in everything if one.key in beside - {headline}]
    seeds = sorted({len(arm.records) for arm in arms})
    many = f"interquartile mean over {' to '.join(map(str, seeds))} seeds" + (", 95 % t bands" if seeds[-1] >= LEAST_SEEDS else "")
    title = f"{task}: {many if seeds[-1] > 1 else 'one seed'}"
    return _small_multiples(arms, chosen, title, x, path, legend=True)


def _record(run: Any) -> Record:
    if isinstance(run, Record):
        return run
    return read_record(run if isinstance(run, str | Path) else run.directory)


def _panels(record: Record) -> list[Metric]:
    """Metrics that get a panel in the run's picture."""
    return [metric for metric in ordered(set(record.metrics) - HIDDEN) if metric.group != METER or metric.key in TIDY]


def _small_multiples(arms: Sequence[Arm], metrics: Sequence[Metric], title: str, x: str, path: str | Path, *, legend: bool) -> Path:
    """A large panel for the first metric, small ones for the rest."""
    import matplotlib
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in FORMATS:
        raise RheostatError(f"Cannot draw {path.name}: use one of the suffixes {', '.join(FORMATS)}.")
    panels: list[tuple[Metric, list[tuple[int, Arm, Curve]]]] = []
    for metric in metrics:
        curves = [(index, arm, arm_curve(arm.records, metric.key)) for index, arm in enumerate(arms)]
        drawn = [(index, arm, curve) for index, arm, curve in curves if curve is not None and x in curve.x]
        if drawn:
            panels.append((metric, drawn))
    with matplotlib.rc_context(STYLE):
        columns = 3
        rows = -(-max(0, len(panels) - 1) // columns)
        figure = Figure(figsize=(9.6, 3.6 + 1.95 * rows), layout="constrained", dpi=150)
        grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.75, *[1.0] * rows])
        figure.suptitle(title, x=0.008, ha="left", fontsize=11.5, fontweight="bold", color="#222222")
        label = _axis_label(arms, x)
        for number, (metric, drawn) in enumerate(panels):
            place = grid[0, :] if number == 0 else grid[1 + (number - 1) // columns, (number - 1) % columns]
            axes = figure.add_subplot(place)
            _draw(axes, metric, drawn, x, named=number == 0)
            below = number + columns >= len(panels)
            if number == 0 or below:
                axes.set_xlabel(label)
            if number == 0 and legend:
                axes.legend(loc="upper left", ncols=min(4, len(arms)), handlelength=1.6)
        if not panels:
            _say_empty(figure)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, metadata=metadata)
        except OSError as error:
            raise RheostatError(f"Could not write the picture {path}: {error}.") from error
    return path


def save_both(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG beside each other; the SVG carries no date, so that equal figures are equal files.

    Raises:
        RheostatError: a place that cannot be written.
    """
    written = []
    for suffix in (".png", ".svg"):
        path = stem.with_suffix(suffix)
        try:
            figure.savefig(path, metadata={"Date": None} if suffix == ".svg" else None)
        except OSError as error:
            raise RheostatError(f"Could not write the picture {path}: {error}.") from error
        written.append(path)
    return written


def draw_arms(axes: Axes, arms: Sequence[Arm], metric: str, x: str) -> None:
    """One metric of several arms into given axes, with bands over seeds and an axis label."""
    curves = [(index, arm, arm_curve(arm.records, metric)) for index, arm in enumerate(arms)]
    drawn = [(index, arm, curve) for index, arm, curve in curves if curve is not None and x in curve.x]
    if drawn:
        _draw(axes, describe(metric), drawn, x)
    axes.set_xlabel(_axis_label(arms, x))
    axes.set_ylabel(describe(metric).label)


def _draw(axes: Axes, metric: Metric, drawn: Sequence[tuple[int, Arm, Curve]], x: str, *, named: bool = True) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for index, arm, curve in drawn:
        colour, dash = PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x[x], curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        marker = "o" if len(curve.y) <= 12 else None
        axes.plot(curve.x[x], curve.y, color=colour, linestyle=dash, linewidth=1.6, marker=marker, markersize=2.6, label=arm.label)
    axes.set_title(metric.label + (" (meter)" if metric.group == METER else ""))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlim(0, max(float(curve.x[x][-1]) for _, _, curve in drawn) * 1.01 or 1.0)
    if x == "steps":
        _mark_switch(axes, [arm for _, arm, _ in drawn], named=named)


def _mark_switch(axes: Axes, arms: Sequence[Arm], *, named: bool) -> None:
    """The step at which collecting begins, in runs that learn from a data set first and share that budget."""
    begins = {record.settings["steps"] for arm in arms for record in arm.records if record.settings.get("online_steps")}
    if len(begins) != 1 or (at := begins.pop()) >= axes.get_xlim()[1]:
        return
    axes.axvline(at, color="#666666", linewidth=0.8, linestyle=":")
    if named:
        text = axes.text(at, 0.02, " acting begins", transform=axes.get_xaxis_transform(), va="bottom", fontsize=7, color="#666666")
        text.set_in_layout(False)


def _axis_label(arms: Sequence[Arm], x: str) -> str:
    units = {arm.unit for arm in arms}
    if x == "steps" and len(units) == 1:
        unit = units.pop()
        return unit[:1].upper() + unit[1:]
    return next(axis.label for axis in AXES if axis.key == x)


def _say_empty(figure: Figure) -> None:
    figure.text(0.5, 0.5, "Nothing has been measured yet.", ha="center", va="center", color="#666666")
