"""A study's result as records for the report, as a section of verdicts, and as a picture."""

from __future__ import annotations

import textwrap
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.analysis.format import effect_text, found_text
from rheostat.analysis.metrics import FINALS
from rheostat.analysis.records import Record
from rheostat.analysis.verdict import Outcome
from rheostat.experiments.studies.results import golden_text
from rheostat.experiments.studies.study import Study
from rheostat.options import flatten
from rheostat.reporting.plots import STYLE
from rheostat.reporting.report import Section
from rheostat.training.version_0_1 import current_metric

SIGNS: dict[Outcome, str] = {
    "supported": "#009E73",
    "refuted": "#D55E00",
    "no relevant difference": "#0072B2",
    "undecided": "#8A8A8A",
    "not testable here": "#8A8A8A",
}
"""Colours of verdicts, shown with their words."""


def records_of(result: dict[str, Any]) -> list[Record]:
    """The curves of a result as records of runs: a task per claim, a method per arm."""
    found = []
    source = result["provenance"]
    for claim in result["claims"]:
        for arm, seeds in claim["curves"].items():
            shown = claim["arms"].get(arm, {})
            config = dict(flatten(shown.get("config") or {}))
            for seed, curve in seeds.items():
                columns = {
                    current_metric(name): np.array([np.nan if x is None else x for x in values], dtype=np.float64)
                    for name, values in curve.items()
                }
                final = next((name for name in FINALS if name in columns), None)
                budget = shown.get("steps") or shown.get("tokens") or int(columns["steps"].max())
                settings = {"method": arm, "task": claim["title"], "seed": int(seed), "steps": budget, "config": config}
                settings["online_steps"] = (shown.get("settings") or {}).get("online_steps", 0)
                found.append(
                    Record(
                        directory=Path(result["study"]) / claim["name"].replace(" ", "-") / f"{arm}-s{seed}".replace(" ", "-"),
                        settings=settings,
                        versions=source["versions"],
                        command=source["command"],
                        columns=columns,
                        nonfinite={},
                        summary={} if final is None else {final: float(columns[final][-1])},
                    )
                )
    return found


def verdict_section(result: dict[str, Any]) -> Section:
    """Claims, rules, numbers and verdicts as a section of the report."""
    import jinja2
    from markupsafe import Markup

    templates = resources.files("rheostat.reporting") / "templates"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"found": found_text, "golden": golden_text}
    body = environment.from_string((templates / "study.html").read_text(encoding="utf-8")).render(result=result)
    return Section(f"Verdicts: {result['system']} ({result['paper']})", Markup(body), first=True)


WIDTH = 44
"""Characters that fit above one panel."""


def draw_into(study: Study, result: dict[str, Any], path: Path) -> Path:
    """The study's picture; the suffix (.png or .svg) is the format. Returns the path."""
    (study.draw or draw_result)(result, path)
    return path


def draw_result(result: dict[str, Any], path: Path) -> None:
    """The curves of every claim (performance, or the first metric), and every effect with its interval and verdict."""
    import matplotlib
    from matplotlib.figure import Figure

    from rheostat.analysis.records import group_arms
    from rheostat.reporting.plots import draw_arms

    tasks = group_arms(records_of(result))
    with matplotlib.rc_context(STYLE):
        columns = min(3, max(1, len(tasks)))
        rows = -(-len(tasks) // columns)
        figure = Figure(figsize=(4.2 * max(2, columns), 3.0 * rows + 1.0 + 0.32 * len(result["claims"])), layout="constrained", dpi=130)
        heights = [3.0 * rows, 1.0 + 0.32 * len(result["claims"])] if tasks else [1.0]
        parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        if tasks:
            grid = parts[0].subplots(rows, columns, squeeze=False).flatten()
            for axes, (task, arms) in zip(grid, tasks.items(), strict=False):
                metric = arms[0].records[0].headline or next(iter(arms[0].records[0].metrics))
                draw_arms(axes, arms, metric, "steps")
                missing = [arm.label for arm in arms if all(metric not in record.metrics for record in arm.records)]
                unseen = f" (not logged by {', '.join(missing)})" if missing else ""
                axes.set_title(textwrap.fill(task + unseen, WIDTH))
                axes.legend(fontsize=7)
            for axes in grid[len(tasks) :]:
                axes.set_visible(False)
        draw_effects(parts[-1].subplots(), result)
        figure.savefig(path)


def draw_effects(axes: Any, result: dict[str, Any]) -> None:
    """Every claim's verdict, with its effect as text."""
    axes.axis("off")
    for row, claim in enumerate(reversed(result["claims"])):
        axes.text(0.0, row, verdict_word(claim), color=SIGNS[claim["verdict"]], fontweight="bold", va="center", fontsize=8)
        axes.text(0.2, row, f"{claim['title']}: {effect_text(claim['effect'])}", va="center", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.7, len(result["claims"]) - 0.3))


def verdict_word(claim: dict[str, Any]) -> str:
    """The verdict of a stored claim; of a pilot its tendency."""
    return f"pilot: {claim['verdict']}" if claim["pilot"] else str(claim["verdict"])
