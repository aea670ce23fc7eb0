"""A section of the report: the matrices, and the disputed rollouts with every method's weights. Plain HTML and CSS."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from rheostat.reporting.disagreement_figures import METHODS, NOTE, clear, full_colour, matrices, percent, strength, title_of
from rheostat.terminal import visible

if TYPE_CHECKING:
    from rheostat.diagnostics.disagreement.disagreement_result import Disagreement
    from rheostat.reporting.report import Section


def section(found: Disagreement) -> Section:
    """The whole disagreement as a part of a page."""
    import jinja2
    from markupsafe import Markup

    from rheostat.reporting.report import Section

    names = [row.name for row in found.rows]
    full = {name: full_colour(found, name) for name in names}
    rollouts = [
        {
            "title": f"Row {one.row} ({one.source}), reward {one.reward:.4g}, {len(one.tokens)} of {one.total} shown",
            "prompt": visible(one.prompt),
            "tokens": [clear(token) or "·" for token in one.tokens],
            "lines": [
                (name, [(round(strength(weight, full[name]), 2), f"{weight:.3g}", state) for weight, state in zip(*pair, strict=True)])
                for name, pair in ((name, (one.weights[name], one.states[name])) for name in names)
            ],
        }
        for one in found.shown
    ]
    tables = []
    for title, (values, cell) in matrices(found).items():
        signed = cell is not percent and values is found.cosines
        tables.append((title, [[(cell(value), 0.0 if value is None or not signed else value) for value in line] for line in values]))
    templates = resources.files("rheostat.reporting") / "templates"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    body = environment.from_string((templates / "disagreement.html").read_text(encoding="utf-8")).render(
        style=Markup((templates / "disagreement.css").read_text(encoding="utf-8")),
        title=title_of(found),
        note=NOTE,
        columns=list(METHODS),
        methods=[(row.name, [cell(row) for cell in METHODS.values()]) for row in found.rows],
        names=names,
        tables=tables,
        rollouts=rollouts,
        notes=found.notes,
    )
    return Section("Same data, different method", Markup(body), first=True)
