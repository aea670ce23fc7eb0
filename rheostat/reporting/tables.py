"""Results on the terminal: one table for each kind of result."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from rheostat.analysis.format import format_interval, format_number
from rheostat.analysis.statistics import Interval
from rheostat.analysis.summaries import final_label, verdict_text
from rheostat.diagnostics.disagreement.disagreement_result import Disagreement
from rheostat.diagnostics.microscope.microscope_result import MicroscopeResult
from rheostat.errors import RheostatError
from rheostat.experiments.boundary import Boundary
from rheostat.experiments.comparison import Comparison
from rheostat.experiments.sweep import METER, Sweep, meter_of

WIDE = 180
"""Columns of a table that is written into a file, which has no width of its own."""


def show(result: Any) -> None:
    """Print a comparison, a sweep, a boundary, a look through the microscope or a disagreement as a table, with notes and places of files.

    Raises:
        RheostatError: a result of another kind.
    """
    if isinstance(result, Comparison):
        places = f"Report: {result.directory / 'report.html'}   Curves: {result.directory / 'curves.png'}"
        _print(comparison_table(result), result.notes, places)
    elif isinstance(result, Sweep):
        places = f"Picture: {result.directory / 'sweep.png'}   Report: {result.directory / 'report.html'}"
        _print(sweep_table(result), result.comparison.notes, places)
    elif isinstance(result, MicroscopeResult):
        from rheostat.reporting.microscope_figures import print_look

        print_look(result)
    elif isinstance(result, Disagreement):
        from rheostat.reporting.disagreement_figures import print_disagreement

        print_disagreement(result)
    elif isinstance(result, Boundary):
        from rheostat.reporting.boundary_figure import print_boundary

        print_boundary(result)
    else:
        raise RheostatError(f"A {type(result).__name__} has no table: show a comparison, a sweep, a microscope's look or a disagreement.")


def _print(table: Table, notes: list[str], places: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(table)
    for line in [*notes, places]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def comparison_table(comparison: Comparison) -> Table:
    """A comparison, one row per method."""
    rows = comparison.summaries
    errors = any(row.sampling_error for row in rows)
    title = f"{comparison.task}: interquartile mean over seeds, 95 % t interval; verdicts from matched seeds, see docs/rule.md"
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("method", overflow="fold")
    for column in ("seeds", final_label(rows), "mean over training", *(["sampling error"] if errors else []), "steps/s"):
        table.add_column(column, justify="right")
    if len(rows) > 1:
        table.add_column(f"P(better than {rows[0].label})", justify="right")
        table.add_column("verdict", overflow="fold")

    def cell(interval: Any) -> str:
        return "–" if interval is None else f"{format_number(interval.estimate)} {format_interval(interval)}"

    for row in rows:
        seeds = f"{len(row.seeds)}" + (f" of {len(row.seeds) + len(row.unfinished)}" if row.unfinished else "")
        cells = [row.label, seeds, cell(row.final), cell(row.mean_over_training)]
        cells += [*([cell(row.sampling_error)] if errors else []), format_number(row.speed)]
        if len(rows) > 1:
            other = "reference" if row is rows[0] else "–"
            cells += [cell(row.verdict.probability), verdict_text(row.verdict)] if row.verdict else ["–", other]
        table.add_row(*(part.replace("[", "\\[") for part in cells))
    return table


def sweep_table(sweep: Sweep) -> Table:
    """A sweep, one row per setting of the dial."""

    def cell(interval: Interval | None) -> str:
        return "–" if interval is None else f"{format_number(interval.estimate)} {format_interval(interval)}"

    summaries = sweep.comparison.summaries
    title = f"{sweep.method} on {sweep.comparison.task}: interquartile mean over seeds, 95 % t interval"
    table = Table(title=title, title_justify="left", header_style="bold")
    names = [f"dial.{sweep.dial}", "seeds", final_label(summaries), "mean over training", *METER]
    for column in names:
        table.add_column(column, justify="right")
    table.add_column(f"better than {sweep.values[0]:g}?")
    for value, summary, arm in zip(sweep.values, summaries, sweep.comparison.arms, strict=True):
        cells = [f"{value:g}", str(len(summary.seeds)), cell(summary.final), cell(summary.mean_over_training)]
        cells += [cell(meter_of(arm.records, key)) for key in METER.values()]
        cells.append(verdict_text(summary.verdict) if summary.verdict else "reference" if summary is summaries[0] else "–")
        table.add_row(*(part.replace("[", "\\[") for part in cells))
    return table
