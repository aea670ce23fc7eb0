"""The reference names shapes and errors: the rooms of mathematics have no public function that is silent about them."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"
DONE = {
    "objectives",
    "credit",
    "buffers",
    "policies",
    "analysis",
    "tasks",
    "tabular",
    "training",
    "masking.py",
    "trajectories.py",
    "parts.py",
}
"""Rooms and files whose docstrings are complete; the others are listed by `python docs/hooks/shapes.py`."""


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hook that looks."""
    monkeypatch.syspath_prepend(str(HOOKS))
    return importlib.import_module("shapes")


def test_no_room_is_silent(shapes: Any) -> None:
    modules = shapes.modules()
    assert len(modules) > 80
    mine = [path for path in modules if path.relative_to(shapes.ROOT / "rheostat").parts[0] in DONE]
    found = [str(each) for path in mine for each in shapes.silences(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(x: Tensor) -> Tensor:\n    'The square.'", "names no shape"),
        ("def f(x: Tensor) -> Tensor:\n    'The square of ``[B, T]``.'", None),
        ("def f(x: Tensor) -> Tensor:\n    'Of the same shape.'", None),
        ("def f(x: int) -> int:\n    'The square.'", None),
        ("def f(x: int) -> int:\n    return x", "has no docstring"),
        ("def f(x: int) -> int:\n    'The square.'\n    raise RheostatError('No.')", "does not say what it raises"),
    ],
)
def test_silence_is_heard(source: str, said: str | None, shapes: Any) -> None:
    node = ast.parse(source).body[0]
    assert [each.what for each in shapes.of_function(Path("x.py"), node, "f")] == ([said] if said else [])
