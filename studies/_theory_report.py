"""The pictures of both studies of theory: those of the theorems that their claims are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SOURCES = ("rheostat.diagnostics.theorems", *(f"rheostat.tabular.{name}" for name in ("emulator", "resets", "value_estimators", "worlds")))
"""What the cells compute with; these import the rest of the laboratory."""


def draw(result: dict[str, Any], path: Path) -> None:
    """A row of panels for every theorem among the numbers of the claims, each once."""
    import matplotlib
    from matplotlib.figure import Figure

    from rheostat.diagnostics.theorems import Picture
    from rheostat.reporting.plots import STYLE
    from rheostat.reporting.theorem_figures import panels_of

    names = Picture.__dataclass_fields__
    found = {}
    for claim in result["claims"]:
        numbers = claim["metrics"].get("numbers", {})
        if set(names) <= set(numbers):
            found[numbers["name"]] = Picture(**{name: numbers[name] for name in names})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9 * max(1, len(found))), layout="constrained", dpi=130)
        rows: Any = figure.subfigures(max(1, len(found)), 1, squeeze=False)[:, 0]
        for row, picture in zip(rows, found.values(), strict=False):
            panels_of(row, picture)
        figure.savefig(path)
