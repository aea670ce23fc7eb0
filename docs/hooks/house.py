"""The plan of the house, read from the code: storeys from ``tests/house/test_layers.py``, sentences from docstrings, arrows from imports.

``python docs/hooks/house.py --write`` puts the plan into CONTRIBUTING.md; the site draws it whenever it is built. A room that the test of
layers does not know, or that has no docstring, stops both.
"""

from __future__ import annotations

import ast
import math
import re
import sys
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "rheostat"
RULES = ROOT / "tests" / "house" / "test_layers.py"
BEGIN = "<!-- house: written by `python docs/hooks/house.py --write` -->"
END = "<!-- house: end -->"
BESIDE = {
    "benchmarks/": "speed and memory in one run with other libraries",
    "studies/": "one file per published claim; the results lie in studies/results",
    "tests/": "mirrors rheostat/; tests/vectors holds the golden vectors and their adapters",
    "docs/": "this documentation; its examples are run by the tests",
}
"""Folders of the checkout that are not in the library."""
GROUND = "the ground"
WIDTH, BOX, HIGH, GAP, LANE = 480, 106, 32, 12, 32
"""Of the picture, in its own units: it is scaled to the page."""


@cache
def layers() -> list[list[str]]:
    """Rooms by storey, from the ground up; those that do not exist yet are left out.

    Raises:
        ValueError: a room of the library stands in no storey.
    """
    known: dict[str, ast.expr] = {}
    for node in ast.parse(RULES.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            known[ast.unparse(target)] = node.value
    ground = ast.literal_eval(known["GROUND"])
    storeys = known["LAYERS"]
    assert isinstance(storeys, ast.Tuple)
    found = [list(ground) if isinstance(each, ast.Name) else list(ast.literal_eval(each)) for each in storeys.elts]
    here = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    missing = here - {"__init__", "__main__"} - {room for storey in found for room in storey}
    if missing:
        raise ValueError(f"{', '.join(sorted(missing))} in rheostat/ has no storey in {RULES.relative_to(ROOT)}.")
    return [[room for room in storey if room in here] for storey in found if any(room in here for room in storey)]


def what(room: str) -> str:
    """The first sentence of a room's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(door(room).read_text()))
    if not docstring:
        raise ValueError(f"{door(room).relative_to(ROOT)} has no docstring.")
    return docstring.split("\n")[0].rstrip(".").replace("``", "")


def door(room: str) -> Path:
    """The file that a room begins with."""
    folder = LIBRARY / room
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def name_of(room: str) -> str:
    """As it is called in the checkout."""
    return f"{room}/" if (LIBRARY / room).is_dir() else f"{room}.py"


def files(room: str) -> Iterator[Path]:
    """The modules of a room."""
    yield from sorted((LIBRARY / room).rglob("*.py")) if (LIBRARY / room).is_dir() else [door(room)]


@cache
def imports(room: str) -> frozenset[str]:
    """The rooms that a room imports, type checkers' own imports left out."""
    rooms = {each for storey in layers() for each in storey}
    found: set[str] = set()
    for path in files(room):
        tree = ast.parse(path.read_text())
        hidden = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
                  for inner in ast.walk(node)}  # fmt: skip
        for node in ast.walk(tree):
            if id(node) in hidden:
                continue
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{each.name}" for each in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("rheostat.")} & rooms
    return frozenset(found - {room})


def plan() -> str:
    """The plan as text, from the ground up."""
    wide = max(len(name_of(room)) for storey in layers() for room in storey) + 2
    lines = ["rheostat/"]
    for number, storey in enumerate(layers()):
        lines += [""] if number else []
        lines += [f"  {name_of(room):<{wide}}{what(room)}" for room in storey]
    lines += [""] + [f"{name:<{wide + 2}}{text}" for name, text in BESIDE.items()]
    return "\n".join(lines)


def table() -> str:
    """The rooms and their sentences, for the site."""
    rows = [f"| {number} | `{name_of(room)}` | {what(room)} |" for number, storey in enumerate(layers()) for room in storey]
    return "\n".join(["| storey | room | what is in it |", "|---:|---|---|", *rows])


# --- the picture ----------------------------------------------------------------------------------------------------------------------


def arrows() -> list[tuple[str, str]]:
    """Imports from one storey into a lower one, without those that follow from others: A needs B, where no room between leads to B.

    The files of the ground count as one room.
    """
    level = {room: number for number, storey in enumerate(layers()) for room in storey} | {GROUND: 0}
    edges = {(room, other if level[other] else GROUND) for room in level if level[room] for other in imports(room)}
    edges = {(start, end) for start, end in edges if level[end] < level[start]}
    below: dict[str, set[str]] = {}
    for room in sorted(level, key=level.__getitem__):
        direct = {other for start, other in edges if start == room}
        below[room] = direct | {end for other in direct for end in below[other]}
    return sorted((start, end) for start, end in edges
                  if not any(end in below[between] for first, between in edges if first == start))  # fmt: skip


def places() -> tuple[dict[str, tuple[float, float]], int]:
    """The upper left corner of every room, and the height of the picture; the ground is at the bottom."""
    found: dict[str, tuple[float, float]] = {}
    y = 4.0
    for storey in reversed(layers()[1:]):
        left = (WIDTH - len(storey) * BOX - (len(storey) - 1) * GAP) / 2
        for number, room in enumerate(storey):
            found[room] = (left + number * (BOX + GAP), y)
        y += HIGH + LANE
    return found | {GROUND: ((WIDTH - BOX) / 2, y)}, int(y + 2 * HIGH + 4)


def way(start: tuple[float, float], end: tuple[float, float], *, straight: bool) -> str:
    """The way of an arrow between two rooms with these corners: down, or around the storeys between them."""
    (x1, y1), (x2, y2) = start, end
    x1, x2 = x1 + BOX / 2, x1 + BOX / 2 if straight else x2 + BOX / 2
    if x1 == x2 and y2 - y1 > HIGH + LANE and not straight:  # around the rooms between, left or right by turns
        away = 1 if round(y1 / (HIGH + LANE)) % 2 else -1
        side = x1 + away * BOX / 2
        return (
            f"M{side:g} {y1 + HIGH / 2:g}C{side + 30 * away:g} {y1 + HIGH:g} {side + 30 * away:g} {y2:g} {side + away:g} {y2 + HIGH / 2:g}"
        )
    if y2 - y1 <= HIGH + LANE or x1 == x2:
        middle = (y1 + HIGH + y2) / 2
        return f"M{x1:g} {y1 + HIGH:g}C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2 - 1:g}"
    side, middle = x1 + math.copysign(BOX / 2, x2 - x1), y1 + HIGH / 2
    return f"M{side:g} {middle:g}C{x2:g} {middle:g} {x2:g} {middle:g} {x2:g} {(middle + y2) / 2:g}V{y2 - 1:g}"


def picture() -> str:
    """The house as an SVG that takes the colours of the page."""
    where, height = places()
    parts = [
        f'<svg class="house" viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg" '
        'aria-label="The rooms of the library, from the ground at the bottom to the command line at the top; arrows go from a room to the '
        'rooms that it imports">',
        '<defs><marker id="house-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>',
    ]
    for start, end in arrows():
        parts.append(
            f'<path d="{way(where[start], where[end], straight=end == GROUND)}" fill="none" stroke="currentColor" stroke-opacity=".55" '
            f'marker-end="url(#house-tip)"><title>{start} imports {end}</title></path>'
        )
    x, y = 2, where.pop(GROUND)[1]
    parts.append(f'<rect x="{x}" y="{y:g}" width="{WIDTH - 2 * x}" height="{2 * HIGH}" rx="4"/>')
    half = (len(layers()[0]) + 1) // 2
    for number, line in enumerate((layers()[0][:half], layers()[0][half:])):
        parts.append(f'<text x="{WIDTH / 2:g}" y="{y + 25 + 24 * number:g}">{" · ".join(line)}</text>')
    for room, (x, y) in where.items():
        parts.append(
            f'<g><title>{escape(what(room))}</title><rect x="{x:g}" y="{y:g}" width="{BOX}" height="{HIGH}" rx="4"/>'
            f'<text x="{x + BOX / 2:g}" y="{y + HIGH / 2 + 5:g}">{room}</text></g>'
        )
    return "".join([*parts, "</svg>"])


# --- CONTRIBUTING.md --------------------------------------------------------------------------------------------------------------------


def with_plan(text: str) -> str:
    """A page with the present plan between its marks."""
    return re.sub(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n\n```text\n{plan()}\n```\n\n{END}", text, flags=re.DOTALL)


def main() -> None:
    """Write the plan, or print it."""
    page = ROOT / "CONTRIBUTING.md"
    if "--write" in sys.argv[1:]:
        page.write_text(with_plan(page.read_text()))
    else:
        print(plan())


if __name__ == "__main__":
    main()
