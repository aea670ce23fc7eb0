"""What people look at after a recipe: a table of its stages, one curve through all of them, and the report with a panel per stage."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from rheostat.analysis.metrics import describe
from rheostat.analysis.records import read_records
from rheostat.experiments.recipe import Recipe
from rheostat.experiments.recipe_stages import COSTS, measure_of, totals
from rheostat.reporting.plots import PALETTE, STYLE, save_both
from rheostat.reporting.report import Section, render, unread, write_page
from rheostat.terminal import print_table
from rheostat.training.logs import METRICS, read_jsonl

COLUMNS = ["stage", "method", "begins with", "prompts", "experts of", "steps", "measured", "before", "after", "seconds"]


def cells_of(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the table; a column that is empty for every stage is left out, and costs follow with their total."""
    costs = [name for name in COSTS if any(name in row for row in rows)]
    columns = [*COLUMNS, *(describe(name).label.lower() for name in costs)]
    cells = [[*_facts(row), *(_number(row.get(name)) for name in costs)] for row in rows]
    summed = totals(rows)
    if len(rows) > 1:
        blank = [""] * (len(COLUMNS) - 2)
        cells.append(["all stages", *blank, _number(summed.get("seconds")), *(_number(summed.get(name)) for name in costs)])
    used = [index for index in range(len(columns)) if any(line[index] not in ("", "–") for line in cells)]
    return [columns[index] for index in used], [[line[index] for index in used] for line in cells]


def _facts(row: dict[str, Any]) -> list[str]:
    measured = "" if row["measure"] is None else describe(row["measure"]).label.lower()
    name = row["stage"] if row["finished"] else f"{row['stage']} (not finished)"
    before, after = (_number(row[key]) if row["measure"] else "" for key in ("first", "last"))
    chosen = [row["prompts"] or "", row["experts_of"] or ""]
    return [name, row["method"], row["from"], *chosen, _number(row["steps"]), measured, before, after, _number(row["seconds"])]


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) and value < 1e9 else f"{value:,.4g}"


def print_recipe(rows: list[dict[str, Any]], directory: Path) -> None:
    """The table of stages on the terminal."""
    columns, cells = cells_of(rows)
    optional = [each for each in columns if each not in ("stage", "method", "steps", "before", "after", "seconds")]
    numbers = set(columns) - {"stage", "method", "begins with", "experts of", "measured"}
    print_table(f"{directory.name}: stages", columns, cells, numbers=numbers, optional=optional)


def draw_recipe(recipe: Recipe, directory: Path) -> Path | None:
    """What was measured on the way, through all stages that hang together; PNG, with an SVG beside it. None where nothing was measured."""
    pieces: list[tuple[str, str, list[float], list[float]]] = []
    ends: dict[str, float] = {}
    for stage in recipe.stages:
        place = directory / recipe.folder(stage)
        if not (place / METRICS).is_file():
            break
        log = read_jsonl(place / METRICS)
        before = recipe.before(stage)
        first = 0.0 if before is None else ends.get(before.name, 0.0)
        measure = measure_of(log)
        known = [row for row in log if measure in row]
        ends[stage.name] = first + (log[-1]["steps"] if log else 0)
        if measure is not None:
            pieces.append((stage.name, measure, [first + row["steps"] for row in known], [row[measure] for row in known]))
    if not pieces:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.4), layout="constrained", dpi=150)
        axes = figure.subplots()
        for number, (name, _, steps, values) in enumerate(pieces):
            colour = PALETTE[number % len(PALETTE)]
            axes.plot(steps, values, color=colour, marker="o", ms=3, label=name)
            axes.axvline(ends[name], color="#bbbbbb", lw=0.8, ls=":")
        labels = list(dict.fromkeys(describe(measure).label for _, measure, _, _ in pieces))
        axes.set(xlabel="Steps, added up from stage to stage", ylabel=" / ".join(labels), title=f"{recipe.name}: through its stages")
        axes.legend(frameon=False, title="Stage")
        return save_both(figure, directory / "recipe.png")[0]


def write_recipe(recipe: Recipe, directory: Path, rows: list[dict[str, Any]]) -> Path:
    """Draw the curve and write the report: the table and the curve first, then every stage as any run."""
    columns, cells = cells_of(rows)
    head = Markup("").join(Markup("<th scope='col'>{}</th>").format(column) for column in columns)
    line = Markup("").join(Markup("<td>{}</td>") for _ in columns)
    body = Markup("").join(Markup("<tr>{}</tr>").format(line.format(*each)) for each in cells)
    table = Markup('<div class="scroll card"><table class="settings"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>')
    text = Markup("<p>Each stage begins with the weights that the table names, and with a new optimiser. Steps are those of the stage.</p>")
    picture = draw_recipe(recipe, directory)
    image = Markup("")
    if picture is not None:
        data = base64.b64encode(picture.read_bytes()).decode()
        image = Markup(
            '<p><img style="max-width:100%" alt="What was measured, through all stages" src="data:image/png;base64,{}"></p>'
        ).format(data)
    section = Section("Stages", text + table.format(head, body) + image, first=True)
    begun = recipe.stages[: len(rows)]
    records, damaged = read_records([directory / recipe.folder(stage) for stage in begun])
    names = {directory / recipe.folder(stage): f"Stage {number}, {stage.name}" for number, stage in enumerate(begun, 1)}
    apart = [  # stages are no rivals: each has a part of the page of its own
        replace(record, settings=record.settings | {"task": f"{names[record.directory]}: {record.task}"}) for record in records
    ]
    page = render(apart, sections=[*unread(damaged), section], title=f"Recipe: {recipe.name}", command=f"rheostat resume {directory}")
    return write_page(page, directory / "report.html")
