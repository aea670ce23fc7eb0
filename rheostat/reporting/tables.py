"""Results on the terminal: one table for each kind of result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rheostat.analysis.format import format_interval, format_number, format_setting
from rheostat.analysis.statistics import Interval, interval_of, iqm
from rheostat.analysis.summaries import final_label, verdict_text
from rheostat.diagnostics.disagreement.disagreement_result import Disagreement
from rheostat.diagnostics.microscope.microscope_result import MicroscopeResult
from rheostat.errors import RheostatError
from rheostat.experiments.boundary import Boundary
from rheostat.experiments.comparison import Comparison
from rheostat.experiments.several_tasks import SeveralTasks
from rheostat.experiments.sweep import METER, Sweep, meter_of
from rheostat.experiments.tune import Tuning
from rheostat.terminal import console, print_table, visible


def show(result: Any) -> None:
    """Print a comparison, a sweep, a boundary, a result of the microscope or a disagreement as a table, with notes and places of files.

    Raises:
        RheostatError: a result of another kind.
    """
    if isinstance(result, Comparison):
        show_comparison(result)
    elif isinstance(result, Sweep):
        show_sweep(result)
    elif isinstance(result, SeveralTasks):
        from rheostat.reporting.task_profiles import show_tasks

        show_tasks(result)
    elif isinstance(result, Tuning):
        show_tuning(result)
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
    """A comparison, one row per method; columns that do not fit are left out, the least important first."""
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


def show_learning(comparison: Comparison) -> None:
    """What every method of a comparison reached, and where it stood before its first update."""
    label = final_label(comparison.summaries).removeprefix("Final ").lower()
    columns = ["method", "seeds", f"{label} before", "after", "mean over training"]
    cells = []
    for arm, row in zip(comparison.arms, comparison.summaries, strict=True):
        first = [float(record.curve(row.metric)[1][0]) for record in arm.records if row.metric and row.metric in record.columns]
        before = interval_of(first, iqm) if first else None
        cells.append([row.label, str(len(row.seeds)), _cell(before), _cell(row.final), _cell(row.mean_over_training)])
    print_table(f"{comparison.task}: interquartile mean over seeds [95 % t interval]", columns, cells, numbers=columns[1:])
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


SHOWN_TRIALS = 10


def show_tuning(tuning: Tuning) -> None:
    """The best trials of a search, and what it cost."""
    title = f"{tuning.method} on {tuning.task}: mean final evaluation over {tuning.seeds} seed{'s' if tuning.seeds > 1 else ''} of tuning"
    print_table(title, ["trial", "value", "options"], trial_cells(tuning, SHOWN_TRIALS), numbers=["trial", "value"])
    _print([*said_of(tuning), f"Report: {tuning.directory / 'report.html'}"])


def trial_cells(tuning: Tuning, count: int) -> list[list[str]]:
    """The best trials, best first, then those that failed."""
    order = sorted(tuning.trials, key=lambda trial: math.inf if trial.value is None else -trial.value)
    return [
        [str(trial.number), "failed" if trial.error else format_number(trial.value), trial.error or _said(trial.options)]
        for trial in order[:count]
    ]


def cost_of(tuning: Tuning) -> str:
    """What a search has cost, as a sentence."""
    cost = tuning.cost
    failed = f", {cost['failed']} of which failed" if cost["failed"] else ""
    spent = f"{cost['runs']} runs, {cost['steps']:,} steps, {cost['seconds']:,.0f} s of computing"
    return f"The search took {cost['trials']} trials{failed}: {spent}."


def said_of(tuning: Tuning) -> list[str]:
    """Cost, choosing online where that is a cost of its own, and advice."""
    return [cost_of(tuning), *([budgets_of(tuning)] if tuning.by_budget else []), advice(tuning)]


def budgets_of(tuning: Tuning) -> str:
    """What choosing among k policies online gives, as a sentence."""
    found = ", ".join(f"{k}: {format_number(value)}" for k, value in tuning.by_budget.items())
    return f"Trying policies in the environment is part of the cost. Expected value of the best of so many that are tried online: {found}."


def advice(tuning: Tuning) -> str:
    """How the best trial is held against the defaults."""
    return (
        "The best of several trials looks better than it is. Compare it with the defaults on seeds that were not tuned on: "
        f"rheostat compare {tuning.method} {tuning.spec} --task {tuning.task}"
    )


def write_tuning(tuning: Tuning) -> None:
    """Write the report of a search: its best trials, its cost and the curves of all."""
    from markupsafe import Markup, escape

    from rheostat.reporting.report import Section, write_report

    line = Markup("<tr><td>{}</td><td>{}</td><td><code>{}</code></td></tr>")
    rows = Markup("").join(line.format(*cells) for cells in trial_cells(tuning, len(tuning.trials)))
    head = Markup("<thead><tr><th>Trial</th><th>Value</th><th>Options</th></tr></thead>")
    table = Markup('<div class="scroll card"><table class="settings">{}<tbody>{}</tbody></table></div>').format(head, rows)
    body = Markup("").join(Markup("<p>{}</p>").format(escape(sentence)) for sentence in said_of(tuning)) + table
    write_report([tuning.directory], tuning.directory / "report.html", sections=[Section("Search", body, first=True)])


def _said(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value if isinstance(value, str) else format_setting(value)}" for name, value in options.items())


def _cell(interval: Interval | None) -> str:
    return "–" if interval is None else f"{format_number(interval.estimate)} {format_interval(interval)}"
