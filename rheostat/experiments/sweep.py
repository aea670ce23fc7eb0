"""What a method's result is worth at several settings of the dial: the same method, task and budget, one number turned.

sweep-.../  a comparison's directory (its arms are the settings), and sweep.json, sweep.png, sweep.svg
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rheostat.analysis.records import Record
from rheostat.analysis.statistics import Interval, interval_of, iqm
from rheostat.analysis.summaries import final_label, verdict_text
from rheostat.errors import RheostatError, unknown
from rheostat.experiments.comparison import Comparison, load_comparison, plan_arms, run_grid
from rheostat.experiments.grid import Display
from rheostat.learner.dial import Dial
from rheostat.training.settings_from_options import free_directory

if TYPE_CHECKING:
    from rich.table import Table

SWEPT = ("lag", "replay_share", "expert_share", "updates_per_batch")
METER = {"ess": "meter/ess", "kl": "meter/kl_behaviour_k3", "limited share": "meter/limited_share"}


@dataclass(frozen=True)
class Sweep:
    """What turning the dial did.

    Attributes:
        comparison: the runs; its arms are the settings of the dial, in order.
        method: its name.
        dial: the number that was turned.
        values: its settings.
    """

    comparison: Comparison
    method: str
    dial: str
    values: tuple[float, ...]

    @property
    def directory(self) -> Path:
        """Where it is kept."""
        return self.comparison.directory

    def rows(self) -> list[dict[str, Any]]:
        """One row per setting: final performance and mean over training with intervals over seeds, and the meter's means."""
        found = []
        for value, summary, arm in zip(self.values, self.comparison.summaries, self.comparison.arms, strict=True):
            row: dict[str, Any] = {f"dial.{self.dial}": value, "seeds": len(summary.seeds)}
            row |= {"final": _numbers(summary.final), "mean_over_training": _numbers(summary.mean_over_training)}
            row |= {name: _numbers(_meter(arm.records, key)) for name, key in METER.items()}
            row["verdict"] = None if summary.verdict is None else summary.verdict.outcome
            row["next_look"] = None if summary.verdict is None else summary.verdict.next_look
            found.append(row)
        return found

    def table(self) -> Table:
        """For a terminal."""
        from rich.table import Table

        from rheostat.reporting.report import format_interval, format_number

        def cell(interval: Interval | None) -> str:
            return "–" if interval is None else f"{format_number(interval.estimate)} {format_interval(interval)}"

        summaries = self.comparison.summaries
        title = f"{self.method} on {self.comparison.task}: interquartile mean over seeds, 95 % t interval"
        table = Table(title=title, title_justify="left", header_style="bold")
        names = [f"dial.{self.dial}", "seeds", final_label(summaries), "mean over training", *METER]
        for column in names:
            table.add_column(column, justify="right")
        table.add_column(f"better than {self.values[0]:g}?")
        for value, summary, arm in zip(self.values, summaries, self.comparison.arms, strict=True):
            cells = [f"{value:g}", str(len(summary.seeds)), cell(summary.final), cell(summary.mean_over_training)]
            cells += [cell(_meter(arm.records, key)) for key in METER.values()]
            cells.append(verdict_text(summary.verdict) if summary.verdict else "reference" if summary is summaries[0] else "–")
            table.add_row(*(part.replace("[", "\\[") for part in cells))
        return table

    def print(self) -> None:
        """Print the table, its notes, and where the picture is."""
        from rich.console import Console

        console = Console()
        if not console.is_terminal:
            console = Console(width=180)
        console.print(self.table())
        for note in self.comparison.notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        places = f"Picture: {self.directory / 'sweep.png'}   Report: {self.directory / 'report.html'}"
        console.print(places, markup=False, highlight=False, soft_wrap=True)

    def plot(self, path: Path | None = None) -> Path:
        """Final performance, mean over training and the KL to the sampler against the dial; PNG, with an SVG beside it."""
        import matplotlib
        from matplotlib.figure import Figure

        from rheostat.reporting.plots import PALETTE, STYLE, save_both

        path = path or self.directory / "sweep.png"
        summaries = self.comparison.summaries
        panels: list[tuple[str, list[Interval | None], list[list[float]]]] = [
            (final_label(summaries), [row.final for row in summaries], [list(arm.finals()) for arm in self._finished()]),
            ("Mean over training", [row.mean_over_training for row in summaries], []),
            ("KL to the behaviour policy", [_meter(arm.records, METER["kl"]) for arm in self.comparison.arms], []),
        ]
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(10.5, 3.4), layout="constrained", dpi=150)
            seeds = max(len(row.seeds) for row in summaries)
            title = f"{self.method} on {self.comparison.task}: dial.{self.dial}, {seeds} seeds, 95 % t intervals"
            figure.suptitle(title, x=0.008, ha="left", fontsize=11, fontweight="bold", color="#222222")
            places = np.arange(len(self.values))
            for axes, colour, (label, intervals, points) in zip(figure.subplots(1, 3), PALETTE, panels, strict=False):
                known = [(x, interval) for x, interval in zip(places, intervals, strict=True) if interval is not None]
                axes.plot([x for x, _ in known], [i.estimate for _, i in known], color=colour, lw=1.4, marker="o", ms=4)
                for x, interval in known:
                    if math.isfinite(interval.low) and math.isfinite(interval.high):
                        axes.plot([x, x], [interval.low, interval.high], color=colour, lw=2.2, alpha=0.55)
                for x, values in zip(places, points, strict=False):
                    axes.plot([x + 0.12] * len(values), values, ".", color="#777777", ms=3.5)
                axes.set_xticks(places, [f"{value:g}" for value in self.values])
                axes.set(title=label, xlabel=f"dial.{self.dial}")
                axes.margins(x=0.08)
            return save_both(figure, path)[0]

    def _finished(self) -> list[Any]:
        return [arm for arm in self.comparison.arms if all(record.finished for record in arm.records)]


def sweep(
    method: str,
    task: str,
    *,
    dial: Mapping[str, Sequence[float]],
    seeds: int = 3,
    steps: int = 100_000,
    margin: float | None = None,
    jobs: int | None = None,
    directory: str | Path | None = None,
    progress: bool | Display = True,
    **options: Any,
) -> Sweep:
    """Train a method at several settings of one number of the dial, everything else equal.

    Args:
        method: its name.
        task: by name.
        dial: the number to turn and its settings, e.g. ``{"lag": [0, 1, 4, 16]}``; numbers with a single setting are held there.
        seeds: runs per setting; fewer than 8 are a pilot, and verdicts are given after 8, 12, 16 and 24.
        steps: budget of every run.
        margin: difference of final values below which nothing matters; can be given only before the first run.
        jobs: runs at a time; None takes one per core.
        directory: where it is kept; one that holds an unfinished sweep of the same settings continues it.
        progress: show a live display.
        **options: settings of the run and of the method, the same everywhere.

    Raises:
        RheostatError: not exactly one number to turn, one that the method cannot honour, or as in
            :func:`rheostat.experiments.comparison.compare`.
        ComparisonInterrupted: a signal came; everything is saved.
    """
    for name in dial:
        if name not in Dial.__dataclass_fields__:
            raise unknown("setting of dial", name, Dial.__dataclass_fields__)
    turned = {name: list(dict.fromkeys(values)) for name, values in dial.items() if len(values) > 1}
    if len(turned) != 1:
        raise RheostatError(
            f"A sweep turns one number of the dial, and {len(turned)} have several settings: "
            f"give several to one of {', '.join('--dial.' + name.replace('_', '-') for name in SWEPT)}, for example --dial.lag 0 1 4 16."
        )
    ((name, values),) = turned.items()
    held = {f"dial.{other}": settings[0] for other, settings in dial.items() if len(settings) == 1}
    where = Path(directory) if directory else free_directory(f"sweep-{method}-{task}-{name}")
    command = _command(method, task, dial, seeds, steps, margin, where, options)
    arms = {f"{name}-{value:g}": (method, {f"dial.{name}": value}) for value in values}
    cells = plan_arms(arms, task, seeds=seeds, steps=steps, margin=margin, where=where, command=command, **(options | held))
    failures = run_grid(cells, where, command, f"{method} {name}", jobs=jobs, progress=progress)
    found = Sweep(load_comparison(where, failures=failures), method, name, tuple(values))
    (where / "sweep.json").write_text(json.dumps(found.rows(), indent=2))
    found.plot()
    found.comparison.report()
    return found


def _meter(records: Sequence[Record], key: str) -> Interval | None:
    """Mean over training of a number of the meter, over seeds."""
    if not all(key in record.columns for record in records):
        return None
    values = [float(record.curve(key)[1].mean()) for record in records]
    return interval_of(values, iqm)


def _numbers(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    low, high = (x if math.isfinite(x) else None for x in (interval.low, interval.high))
    return {"estimate": interval.estimate, "low": low, "high": high}


def _command(
    method: str,
    task: str,
    dial: Mapping[str, Sequence[float]],
    seeds: int,
    steps: int,
    margin: float | None,
    where: Path,
    options: dict[str, Any],
) -> str:
    words = ["rheostat", "sweep", method, task]
    for name, values in dial.items():
        words += [f"--dial.{name.replace('_', '-')}", *(f"{value:g}" for value in values)]
    words += ["--seeds", str(seeds), "--steps", str(steps), "--directory", str(where)]
    words += [] if margin is None else ["--margin", f"{margin:g}"]
    if options:
        words.append("--options")
        words += [word for key, value in options.items() for word in (key, value if isinstance(value, str) else json.dumps(value))]
    return shlex.join(words)
