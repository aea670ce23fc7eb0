"""Comparisons on several tasks: the picture of their performance profiles, their part of the report, and their table."""

from __future__ import annotations

import base64
from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from rheostat.analysis.format import format_interval, format_number
from rheostat.analysis.statistics import Interval
from rheostat.analysis.summaries import verdict_text
from rheostat.experiments.several_tasks import SeveralTasks
from rheostat.reporting.plots import DASHES, PALETTE, STYLE, save_both
from rheostat.reporting.report import Section, write_report
from rheostat.terminal import console, print_table, visible

SCALE = "scores between the least (0) and the largest (1) final value of any run of a task"


def cells_of(found: SeveralTasks) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and one row of cells per method."""
    reference = found.methods[0]
    columns = ["method", "seeds", "score", f"P(better than {reference})", "verdict", *found.tasks]
    rows = []
    for row in found.rows:
        verdict = verdict_text(row.verdict) if row.verdict else "reference" if row.label == reference else "–"
        cells = [row.label, str(row.seeds), _cell(row.score), _cell(row.probability), verdict]
        rows.append([*cells, *(_cell(row.by_task[task]) for task in found.tasks)])
    return columns, rows


def show_tasks(found: SeveralTasks) -> None:
    """Print one table over all tasks; single tasks are left out where they do not fit."""
    columns, rows = cells_of(found)
    title = f"Interquartile mean over {len(found.tasks)} tasks [95 % t interval], {SCALE}"
    print_table(title, columns, rows, numbers={*columns} - {"method", "verdict"}, optional=found.tasks)
    on = console()
    for line in [*found.notes, f"Report: {found.directory / 'report.html'}   Profiles: {found.directory / 'profiles.png'}"]:
        on.print(visible(line), markup=False, highlight=False, soft_wrap=True)


def draw_profiles(found: SeveralTasks) -> Path:
    """Share of every method's runs above each score, with a band; PNG, with an SVG beside it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.6), layout="constrained", dpi=150)
        axes = figure.subplots()
        for index, method in enumerate(found.methods):
            profile = found.profile(method)
            if profile is None:
                continue
            colour, dash = PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]
            axes.fill_between(profile.thresholds, profile.low, profile.high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(profile.thresholds, profile.estimate, color=colour, linestyle=dash, label=method)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Score", ylabel="Share of runs above it")
        axes.set_title(f"Performance profiles over {len(found.tasks)} tasks")
        axes.legend(frameon=False)
        return save_both(figure, found.directory / "profiles.png")[0]


def write_tasks(found: SeveralTasks) -> None:
    """Draw the profiles and write the report: the table over all tasks first, then every task as ever."""
    picture = base64.b64encode(draw_profiles(found).read_bytes()).decode()
    columns, rows = cells_of(found)
    head = Markup("").join(Markup("<th scope='col'>{}</th>").format(column) for column in columns)
    line = Markup("").join(Markup("<td>{}</td>") for _ in columns)
    body = Markup("").join(Markup("<tr>{}</tr>").format(line.format(*cells)) for cells in rows)
    table = Markup('<div class="scroll card"><table class="settings"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>')
    image = Markup(
        '<p><img style="max-width:100%" alt="Performance profiles: share of runs above each score" src="data:image/png;base64,{}"></p>'
    )
    text = Markup("<p>Interquartile mean over tasks and seeds with 95 % t interval; {}.</p>").format(SCALE)
    section = Section("Over all tasks", text + table.format(head, body) + image.format(picture), first=True)
    folders = [comparison.directory for comparison in found.comparisons.values()]
    write_report(folders, found.directory / "report.html", sections=[section])


def _cell(interval: Interval | None) -> str:
    return "–" if interval is None else f"{format_number(interval.estimate)} {format_interval(interval)}"
