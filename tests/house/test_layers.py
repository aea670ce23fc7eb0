"""The layers of the house: who may import whom. No import climbs, and no two modules import each other in a circle.

Imports inside functions count, too: they only postpone what they ask for. What type checkers alone see does not count.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import rheostat

ROOT = Path(rheostat.__file__).parent
GROUND = (
    "errors",
    "files",
    "json_text",
    "locks",
    "options",
    "plugins",
    "remembered",
    "streams",
    "terminal",
    "tensors",
    "trajectories",
    "masking",
    "parts",
)
LAYERS: tuple[tuple[str, ...], ...] = (
    GROUND,
    ("objectives", "credit", "buffers", "policies"),
    ("tasks", "tabular"),
    ("collect",),
    ("learner",),
    ("methods",),
    ("training",),
    ("analysis",),
    ("experiments",),
    ("diagnostics",),
    ("reporting",),
    ("integrations",),
    ("api",),
    ("cli",),
)
"""From the ground up; rooms of one layer may import each other."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the library by its dotted name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = list(path.relative_to(ROOT.parent).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


@cache
def imports(name: str, *, top_only: bool = False) -> frozenset[str]:
    """Modules of the library that a module imports."""
    tree = ast.parse(modules()[name].read_text())
    hidden = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and _types_only(node.test) for inner in ast.walk(node)}
    nodes = tree.body if top_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return frozenset(each for each in found if each in modules() and each != name)


def _types_only(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING")


def room(name: str) -> str:
    """The room of a module."""
    return name.split(".")[1] if "." in name else ""


def level(name: str) -> int | None:
    """The layer of a module; None for the package itself."""
    return next((number for number, rooms in enumerate(LAYERS) if room(name) in rooms), None)


def test_every_room_has_a_layer() -> None:
    rooms = {room(name) for name in modules()} - {"", "__main__"}
    assert rooms <= {each for layer in LAYERS for each in layer}, rooms


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_import_climbs(name: str) -> None:
    mine = level(name)
    if mine is None:
        return
    climbing = sorted(other for other in imports(name) if (theirs := level(other)) is not None and theirs > mine)
    assert climbing == []


@pytest.mark.parametrize(
    "name", sorted(each for each in modules() if each.startswith(("rheostat.methods.control.", "rheostat.methods.language.")))
)
def test_no_method_imports_another_method(name: str) -> None:
    """A method file holds one method; what two of them share has a room of its own."""
    assert sorted(other for other in imports(name) if room(other) == "methods") == []


def test_no_circles() -> None:
    """Among imports at the top of modules, package by package members counted as themselves."""
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if state.get(name) == 1:
            raise AssertionError(" -> ".join([*path[path.index(name) :], name]))
        if state.get(name) == 2:
            return
        state[name] = 1
        for other in sorted(imports(name, top_only=True)):
            if modules()[other].name != "__init__.py":
                visit(other, (*path, name))
        state[name] = 2

    for name in sorted(modules()):
        visit(name, ())
