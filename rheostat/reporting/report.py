"""One self-contained HTML page about runs and comparisons: opens from disk, loads nothing from the network.

Charts are drawn by plotly.js, taken from the Python package ``plotly`` and embedded compressed (2 MB instead of 5 MB); everything else
is in the page as text and tables too, so that it can be read without scripts, by keyboard and by screen readers.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.analysis.curves import Curve, arm_curve
from rheostat.analysis.format import format_interval, format_number, format_setting
from rheostat.analysis.metrics import AT_THE_END, AXES, GROUPS, HEADLINES, Metric, ordered
from rheostat.analysis.records import Arm, Record, find_runs, flat_settings, group_arms, read_records, regenerate
from rheostat.analysis.summaries import final_label, summarise, verdict_text
from rheostat.analysis.verdict import Verdict
from rheostat.errors import RheostatError
from rheostat.reporting.in_context_panel import in_context
from rheostat.training.sandboxing import sandbox_line
from rheostat.training.video import newest_video

COLOURS = 7
"""Colours of the page's palette; line styles change when they run out."""
SEED_POINTS = 120
TABLE_ROWS = 10
WIN_RATE, KL = "validation_win_rate", "validation_kl"
"""What the curve of a policy that learns from preferences is drawn from: over-optimisation is a fall at large KL."""
FOLDED = frozenset(
    {
        "meter/age_max",
        "meter/ratio_low",
        "meter/ratio_median",
        "meter/ratio_high",
        "meter/ratio_max",
        "meter/gap",
        "meter/kl_behaviour_k1",
        "meter/kl_behaviour_k2",
    }
    | {"episode_length", "gradient_steps", "learning_rate", "behaviour_gradient_steps", "behaviour_clip_fraction"}
    | {"stage", "context_steps", "context_episodes", "evaluation_trials", "judged_networks", "trained_networks", *AT_THE_END}
    | {"validation_length", "invalid_share", "sampling_rounds", "evaluation_deviation", "evaluation_length", "evaluation_episodes"}
)
"""Drawn behind a "more" button."""


@dataclass(frozen=True)
class Section:
    """A part of the page that another module has rendered, e.g. rollouts.

    Attributes:
        title: its heading.
        body: ``markupsafe.Markup`` is taken as HTML; plain text is escaped.
        first: before the curves instead of after them.
    """

    title: str
    body: str
    first: bool = False


@dataclass(frozen=True)
class Live:
    """Settings of a page that refreshes itself.

    Attributes:
        every: seconds between two refreshes.
        status: the progress, in a line.
    """

    every: float
    status: str


def write_report(paths: Sequence[str | Path], output: str | Path, *, sections: Sequence[Section] = (), title: str | None = None) -> Path:
    """Write the page.

    Args:
        paths: directories of runs, or of comparisons (directories of runs); runs that differ by their seed only are aggregated. Names of
            studies, or their result files, too.
        output: the page to write; replaced in one step.
        sections: further parts, e.g. rollouts.
        title: heading; None makes one from methods and tasks.

    Returns:
        ``output``.

    Raises:
        RheostatError: no run there, none that can be read (others are left out, and the page says so), the same run twice, or a place that
            cannot be written.
    """
    if not paths:
        raise RheostatError("A report needs at least one directory of a run or a comparison, or the name of a study.")
    output = Path(output)
    studies = {path: study_result(path) for path in paths}
    results = [result for result in studies.values() if result is not None]
    runs = [path for path, result in studies.items() if result is None]
    records, damaged = read_records(find_runs(runs)) if runs else ([], [])
    sections = [*unread(damaged), *sections]
    if results:
        from rheostat.reporting.study_figures import records_of, verdict_section

        records = [record for result in results for record in records_of(result)] + records
        sections = [*map(verdict_section, results), *sections]
        title = title or (f"Study: {_and([result['system'] for result in results])}" if not runs else None)
    page = render(
        records, sections=sections, title=title, command=shlex.join(["rheostat", "report", *map(str, paths), "--output", str(output)])
    )
    return write_page(page, output)


def write_page(page: str, output: Path) -> Path:
    """Write a page in one step.

    Raises:
        RheostatError: a place that cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = output.with_name(f".{output.name}.writing")
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, output)
    except OSError as error:
        raise RheostatError(f"Could not write the report {output}: {error}.") from error
    return output


def unread(damaged: Sequence[str]) -> list[Section]:
    """The part of a page that names runs which cannot be read, if there are any.

    Args:
        damaged: a sentence about each.
    """
    return [Section("Runs left out", " ".join(damaged), first=True)] if damaged else []


def video_section(run: Path) -> Section | None:
    """The newest film of a run, in the page itself; None where it has kept none."""
    from markupsafe import Markup

    path = newest_video(run)
    if path is None:
        return None
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    what = f"One episode of the policy at {path.stem.removeprefix('step-').lstrip('0') or '0'} steps, deterministic actions."
    image = Markup('<p>{}</p><p><img style="max-width:100%" alt="{}" src="data:image/gif;base64,{}"></p>')
    return Section("Video", image.format(what, what, Markup(data)))


def study_result(path: str | Path) -> dict[str, Any] | None:
    """The result of a study given by its name or its file; None for anything else.

    Raises:
        RheostatError: the result is missing or damaged.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() and path.suffix == ".json"):
        return None
    from rheostat.experiments.studies.results import read_result, result_path, study_names

    if path.is_file():
        return read_result(path)
    known: list[str] = []
    with contextlib.suppress(RheostatError):  # without studies, the name is a directory
        known = study_names()
    return read_result(result_path(str(path))) if str(path) in known else None


def render(
    records: Sequence[Record],
    *,
    sections: Sequence[Section] = (),
    title: str | None = None,
    command: str = "",
    live: Live | None = None,
    library: bool = True,
) -> str:
    """The page of some runs, as HTML.

    Args:
        records: the runs.
        sections, title: as in :func:`write_report`.
        command: that makes the page.
        live: makes it a page that refreshes itself from the path ``update`` of its server.
        library: with the library that draws, which a page needs once.
    """
    import jinja2
    from markupsafe import Markup

    templates = resources.files("rheostat.reporting") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": format_number, "interval": format_interval, "setting": format_setting, "anchor": anchor}
    environment.filters["words"] = _verdict_words
    tasks = [_task(task, arms) for task, arms in group_arms(records).items()]
    arms = [arm for task in tasks for arm in task["arms"]]
    charts = {"tasks": [task.pop("charts") for task in tasks]}
    return environment.get_template("report.html").render(
        title=title or (_title(tasks) if tasks else "Report"),
        tasks=tasks,
        single=records[0] if len(records) == 1 else None,
        settings=flat_settings(records[0]) if len(arms) == 1 else {},
        versions=_versions(records),
        commands=list(dict.fromkeys(regenerate(record) for record in records)),
        command=command,
        live=live,
        directories=[str(record.directory) for record in records],
        sections=sections,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        style=Markup((templates / "report.css").read_text(encoding="utf-8")),
        script=Markup((templates / "report.js").read_text(encoding="utf-8")),
        charts=Markup(_json(charts)),
        library=Markup(_plotly() if library else ""),
    )


def _title(tasks: Sequence[dict[str, Any]]) -> str:
    methods = list(dict.fromkeys(arm["method"] for task in tasks for arm in task["arms"]))
    names = [task["name"] for task in tasks]
    return f"{_and(methods)} on {_and(names)}"


def _and(names: Sequence[str]) -> str:
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _versions(records: Sequence[Record]) -> dict[str, str]:
    """Every version that occurs; several where runs differ."""
    found: dict[str, list[str]] = {}
    for record in records:
        for package, version in record.versions.items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    sandboxes = list(dict.fromkeys(filter(None, (sandbox_line(record.directory) for record in records))))
    if sandboxes:
        found["sandbox of the graders"] = sandboxes
    return {package: ", ".join(versions) for package, versions in found.items()}


# --- one task: data of the template and of the script ---------------------------------------------------------------------------------


def _task(name: str, arms: Sequence[Arm]) -> dict[str, Any]:
    from rheostat.experiments.comparison import missing

    rows, notes = summarise(arms, margin=_margin(arms))
    places = dict.fromkeys(record.directory.parent for arm in arms for record in arm.records)
    notes = list(dict.fromkeys([*notes, *(note for place in places for note in missing(place))]))
    metrics = ordered(key for arm in arms for record in arm.records for key in record.metrics)
    units = {arm.unit for arm in arms}
    step_label = _capital(units.pop()) if len(units) == 1 else "Steps"
    panels: list[dict[str, Any]] = []
    for metric in metrics:
        panel = _panel(metric, arms, step_label)
        if panel is not None:
            panels.append(panel)
    panels = in_context(arms) + frontier(arms) + panels
    headline = next((key for key in HEADLINES if any(panel["key"] == key for panel in panels)), None)
    panels.sort(key=lambda panel: panel["key"] != headline)  # stable: the rest keeps its order
    for number, panel in enumerate(panels):
        panel["id"] = f"{anchor(name)}-{number}"
        panel["headline"] = panel["key"] == headline
        if not panel["headline"]:  # single seeds are shown of the headline only, to keep the page small
            for series in panel["chart"]["series"]:
                series.pop("seeds", None)
    labels = {axis.key: axis.label for axis in AXES} | {"steps": step_label}
    repeated = {"updates": "updates", "generated_tokens": "generated tokens"}  # axes that the budget itself counts
    timed = [panel for panel in panels if "axis" not in panel["chart"]]
    keys = [key for key in _common_axes(timed) if key == "steps" or (_moves(timed, key) and repeated.get(key) != step_label.lower())]
    colours = [{"label": arm.label, "colour": index % COLOURS, "dash": index // COLOURS % 4} for index, arm in enumerate(arms)]
    return {
        "name": name,
        "anchor": anchor(name),
        "arms": [
            {"label": arm.label, "method": arm.method, "seeds": arm.seeds, "differences": arm.differences, **colours[index]}
            for index, arm in enumerate(arms)
        ],
        "differing": list(dict.fromkeys(key for arm in arms for key in arm.differences)),
        "budget": arms[0].records[0].settings.get("steps"),
        "unit": step_label.lower(),
        "speed_unit": f"{step_label.lower()} per second",
        "rows": rows,
        "final_label": final_label(rows),
        "notes": notes,
        "headline": next((panel for panel in panels if panel["headline"]), None),
        "groups": _groups(panels),
        "axes": [{"key": key, "label": labels[key]} for key in keys],
        "charts": {
            "arms": colours,
            "axes": {key: labels[key] for key in keys},
            "panels": {panel["id"]: panel.pop("chart") for panel in panels},
        },
    }


def _verdict_words(verdict: Verdict) -> tuple[str, str]:
    """The verdict, and its details in small print."""
    first, _, rest = verdict_text(verdict).replace(", decides", "; decides").partition("; ")
    return first, rest


def _margin(arms: Sequence[Arm]) -> float | None:
    """The margin that the comparison of these runs declared; None for runs of no single comparison."""
    from rheostat.experiments.comparison import read_manifest

    places = {record.directory.parent for arm in arms for record in arm.records}
    manifest = None
    with contextlib.suppress(RheostatError):  # what is said of missing runs names a damaged one
        manifest = read_manifest(places.pop()) if len(places) == 1 else None
    return None if manifest is None else manifest.get("margin")


def _groups(panels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Panels by group, the important ones shown and the rest behind a button; a group with nothing to show joins the last one."""
    groups: dict[str, dict[str, Any]] = {group: {"name": group, "shown": [], "folded": []} for group in GROUPS}
    for panel in panels:
        if not panel["headline"]:
            groups[panel["group"]]["folded" if panel["folded"] else "shown"].append(panel)
    shown = [group for group in groups.values() if group["shown"]]
    rest = [panel for group in groups.values() if not group["shown"] for panel in group["folded"]]
    if rest and shown:
        shown[-1]["folded"] = rest + shown[-1]["folded"]
    elif rest:
        shown = [{"name": "Curves", "shown": rest, "folded": []}]
    return shown


def _panel(metric: Metric, arms: Sequence[Arm], step_label: str) -> dict[str, Any] | None:
    curves = [(index, arm_curve(arm.records, metric.key)) for index, arm in enumerate(arms)]
    drawn = [(index, curve) for index, curve in curves if curve is not None]
    if not drawn:
        return None
    series = [_series(index, curve) for index, curve in drawn]
    return {
        "key": metric.key,
        "label": metric.label,
        "help": metric.help,
        "group": metric.group,
        "folded": metric.key in FOLDED or metric.key.count("/") > 1 or metric.key.startswith(("meter/share_", "meter/age_share_")),
        "averaged": max(curve.averaged for _, curve in drawn),
        "axes": set.intersection(*(set(curve.x) for _, curve in drawn)),
        "spans": {
            key: max(float(np.ptp(curve.x[key])) for _, curve in drawn) for key in drawn[0][1].x if all(key in c.x for _, c in drawn)
        },
        "table": _table(arms, drawn),
        "description": _describe(metric, arms, drawn, step_label),
        "chart": {"label": metric.label, "series": series},
    }


def frontier(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """The panel of win rate against the KL to the start, a point per measurement; none where no run has measured both."""
    curves = [(index, arm_curve(arm.records, WIN_RATE), arm_curve(arm.records, KL)) for index, arm in enumerate(arms)]
    drawn = [(index, won, kl) for index, won, kl in curves if won is not None and kl is not None and len(won.y) == len(kl.y)]
    if not drawn:
        return []
    said = [f"{arms[index].label} ends at {format_number(float(kl.y[-1]))} nats with {won.y[-1]:.0%}" for index, won, kl in drawn]
    budgets = sorted({float(step) for _, won, _ in drawn for step in won.x["steps"]})[-TABLE_ROWS:]
    table = {
        "columns": [f"{arms[index].label}: KL, win rate" for index, *_ in drawn],
        "rows": [{"budget": f"{round(step):,}", "cells": [_at(step, won, kl) for _, won, kl in drawn]} for step in budgets],
    }
    chart = {
        "label": "Win rate against KL",
        "axis": "KL to the start (nats)",
        "series": [{"arm": index, "x": {"own": _short(kl.y)}, "y": _short(won.y)} for index, won, kl in drawn],
    }
    panel = {
        "key": "frontier",
        "label": "Win rate against KL",
        "help": "How often the policy's answer beats the start's, against how far the policy has moved; a point per measurement",
        "group": GROUPS[0],
        "folded": False,
        "averaged": 1,
        "table": table,
        "description": f"Line chart of the win rate against the KL to the start: {'; '.join(said)}.",
        "chart": chart,
    }
    return [panel]


def _at(step: float, won: Curve, kl: Curve) -> str:
    """KL and win rate of the measurement at a step, as words; a dash where there is none."""
    place = np.flatnonzero(won.x["steps"] == step)
    return f"{format_number(float(kl.y[place[0]]))}, {format_number(float(won.y[place[0]]))}" if len(place) else "–"


def _series(index: int, curve: Curve) -> dict[str, Any]:
    series: dict[str, Any] = {"arm": index, "x": {key: _short(values) for key, values in curve.x.items()}, "y": _short(curve.y)}
    if curve.low is not None and curve.high is not None:
        series |= {"low": _short(curve.low), "high": _short(curve.high)}
        every = max(1, -(-curve.seeds.shape[1] // SEED_POINTS))
        series |= {"every": every, "seeds": [_short(values[::every]) for values in curve.seeds]}
    return series


def _table(arms: Sequence[Arm], drawn: Sequence[tuple[int, Curve]]) -> dict[str, Any]:
    """The chart as a small table: values at evenly spaced budgets."""
    ends = [float(curve.x["steps"][-1]) for _, curve in drawn]
    last = min(ends) if min(ends) > 0.9 * max(ends) else max(ends)  # runs overshoot their budget by different parts of a batch
    budgets = [last * (row + 1) / TABLE_ROWS for row in range(TABLE_ROWS)]
    rows = []
    for budget in budgets:
        cells = []
        for _, curve in drawn:
            x = curve.x["steps"]
            if not x[0] <= budget <= x[-1] * 1.0001:
                cells.append("–")
                continue
            value = format_number(float(np.interp(budget, x, curve.y)))
            if curve.low is not None and curve.high is not None:
                low, high = (format_number(float(np.interp(budget, x, end))) for end in (curve.low, curve.high))
                value += f" [{low}, {high}]"
            cells.append(value)
        rows.append({"budget": f"{round(budget):,}", "cells": cells})
    return {
        "columns": [arms[index].label for index, _ in drawn],
        "rows": [row for row in rows if any(cell != "–" for cell in row["cells"])],
    }


def _describe(metric: Metric, arms: Sequence[Arm], drawn: Sequence[tuple[int, Curve]], step_label: str) -> str:
    """Text of the picture for screen readers."""
    ends = [
        f"{arms[index].label} goes from {format_number(float(curve.y[0]))} to {format_number(float(curve.y[-1]))}" for index, curve in drawn
    ]
    return f"Line chart of {metric.label.lower()} against {step_label.lower()}: {'; '.join(ends)}."


def _common_axes(panels: Sequence[dict[str, Any]]) -> list[str]:
    common = set.intersection(*(panel["axes"] for panel in panels)) if panels else set()
    return [axis.key for axis in AXES if axis.key in common]


def _moves(panels: Sequence[dict[str, Any]], axis: str) -> bool:
    """Whether the budget of this axis is above 0."""
    return any(panel["spans"].get(axis, 0.0) > 0 for panel in panels)


# --- text ------------------------------------------------------------------------------------------------------------------------------


def anchor(text: str) -> str:
    """An HTML id made from any text."""
    return "id-" + "".join(character if character.isascii() and character.isalnum() else "-" for character in text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short(values: Any) -> list[float]:
    """Five significant digits are enough for a picture and halve the page."""
    return [float(f"{value:.5g}") for value in values]


def _json(value: Any) -> str:
    """JSON that cannot end its script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@lru_cache(maxsize=1)
def _plotly() -> str:
    """plotly.js, gzip-compressed, as base64."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise RheostatError(
            "The report needs the package 'plotly', which comes with Rheostat but is missing here: pip install plotly."
        ) from error
    return base64.b64encode(gzip.compress(get_plotlyjs().encode("utf-8"), compresslevel=6, mtime=0)).decode("ascii")
