"""Results on the terminal: one table for each kind of result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rheostat.analysis.format import format_interval, format_number
from rheostat.analysis.statistics import Interval
from rheostat.analysis.summaries import final_label, verdict_text
from rheostat.diagnostics.disagreement.disagreement_result import Disagreement
from rheostat.diagnostics.microscope.microscope_result import MicroscopeResult
from rheostat.errors import RheostatError
from rheostat.experiments.boundary import Boundary
from rheostat.experiments.comparison import Comparison
from rheostat.experiments.sweep import METER, Sweep, meter_of
from rheostat.terminal import console, print_table, visible


def show(result: Any) -> None:
    """Print a comparison, a sweep, a boundary, a look through the microscope or a disagreement as a table, with notes and places of files.

    Raises:
        RheostatError: a result of another kind.
    """
    if isinstance(result, Comparison):
        show_comparison(result)
    elif isinstance(result, Sweep):
        show_sweep(result)
    elif isinstance(result, MicroscopeResult):
        from rheostat.reporting.microscope_figures import print_microscope

        print_microscope(result)
    elif isinstance(result, Disagreement):
        from rheostat.reporting.disagreement_figures import print_disagreement

        print_disagreement(result)
    elif isinstance(result, Boundary):
        from rheostat.reporting.boundary_figure import print_boundary

        print_boundary(result)
    else:
        raise RheostatError(f"A {type(result).__name__} has no table: show a comparison, a sweep, a microscope's look or a disagreement.")


def _print(lines: Sequence[str]) -> None:
    on = console()
    for line in lines:
        on.print(visible(line), markup=False, highlight=False, soft_wrap=True)


def show_comparison(comparison: Comparison) -> None:
    """A comparison, one row per method; what does not fit is left out, the least important first."""
    rows = comparison.summaries
    final, better = final_label(rows).lower(), f"P(better than {rows[0].label})"
    columns = ["method", "seeds", final]
    columns += [better, "verdict"] if len(rows) > 1 else []
    columns += ["mean over training", *(["sampling error"] if any(row.sampling_error for row in rows) else []), "steps/s"]
    cells = []
    for row in rows:
        seeds = f"{len(row.seeds)}" + (f" of {len(row.seeds) + len(row.unfinished)}" if row.unfinished else "")
        known = {"method": row.label, "seeds": seeds, final: _cell(row.final), "mean over training": _cell(row.mean_over_training)}
        known |= {"sampling error": _cell(row.sampling_error), "steps/s": format_number(row.speed)}
        known[better] = _cell(row.verdict.probability) if row.verdict else "–"
        known["verdict"] = verdict_text(row.verdict) if row.verdict else "reference" if row is rows[0] else "–"
        cells.append([known[column] for column in columns])
    optional = ["mean over training", "sampling error", "steps/s"]
    title = f"{comparison.task}: interquartile mean over seeds [95 % t interval]; verdicts from matched seeds, see docs/rule.md"
    print_table(
        title, columns, cells, numbers=set(columns) - {"method", "verdict"}, optional=[each for each in optional if each in columns]
    )
    _print([*comparison.notes, f"Report: {comparison.directory / 'report.html'}   Curves: {comparison.directory / 'curves.png'}"])


def show_sweep(sweep: Sweep) -> None:
    """A sweep, one row per setting of the dial."""
    summaries = sweep.comparison.summaries
    columns = [f"dial.{sweep.dial}", "seeds", final_label(summaries).lower(), f"better than {sweep.values[0]:g}?"]
    columns += ["mean over training", *METER]
    cells = []
    for value, summary, arm in zip(sweep.values, summaries, sweep.comparison.arms, strict=True):
        verdict = verdict_text(summary.verdict) if summary.verdict else "reference" if summary is summaries[0] else "–"
        row = [f"{value:g}", str(len(summary.seeds)), _cell(summary.final), verdict, _cell(summary.mean_over_training)]
        cells.append([*row, *(_cell(meter_of(arm.records, key)) for key in METER.values())])
    title = f"{sweep.method} on {sweep.comparison.task}: interquartile mean over seeds [95 % t interval]"
    numbers = [column for index, column in enumerate(columns) if index != 3]
    print_table(title, columns, cells, numbers=numbers, optional=["mean over training", *METER])
    _print([*sweep.comparison.notes, f"Picture: {sweep.directory / 'sweep.png'}   Report: {sweep.directory / 'report.html'}"])


def _cell(interval: Interval | None) -> str:
    return "–" if interval is None else f"{format_number(interval.estimate)} {format_interval(interval)}"
