"""Cells: keys that cover what matters, results that are stored once and never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import RheostatError
from studies import _cells
from studies._cells import Cell, compute, meaning, read, run_cells, source_files, with_needs

SOURCE = '''
"""Module."""
def f(x):
    """What f does."""
    # a comment
    return x + 1
'''


def tiny(seed: int = 0, needs: tuple[Cell, ...] = ()) -> Cell:
    arguments = {"arm": "ros", "settings": {"learning_rate": 10.0}, "seeds": 2, "seed": seed, "updates": 1, "trajectories": 2}
    return Cell("studies._two_step:learn", arguments | {"learning_rate": 1.0}, f"tiny {seed}", needs=needs)


def test_meaning_ignores_words_and_layout_but_not_code() -> None:
    same = SOURCE.replace("What f does.", "Adds.").replace("# a comment", "\n").replace("x + 1", "(x\n + 1)")
    assert meaning(SOURCE) == meaning(same)
    assert meaning(SOURCE) != meaning(SOURCE.replace("+ 1", "+ 2"))
    assert meaning('"""a"""\n') == meaning("")


def test_sources_are_followed_through_imports_inside_functions_too() -> None:
    files = source_files(("studies._fixed_target",))
    assert files["rheostat.objectives.sampling_error"].name == "sampling_error.py"
    assert "rheostat.masking" in files  # through others
    assert "rheostat.tasks.control.registration" in files  # imported where it is used
    assert "rheostat.methods.props" not in files  # found by name at run time: the cell has to say so
    assert "rheostat.methods.props" in source_files(("studies._fixed_target", "rheostat.methods.props"))
    assert "rheostat.training.progress" not in files  # what only displays does not make results stale


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(RheostatError, match="no_such_method"):
        source_files(("rheostat.methods.no_such_method",))


def test_the_key_covers_arguments_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    key = tiny().key
    assert tiny().key == key != tiny(1).key
    monkeypatch.setattr(_cells, "code_hash", lambda roots: "other code")
    assert tiny().key != key
    monkeypatch.undo()
    monkeypatch.setattr(_cells, "library_versions", lambda: {"torch": "0"})
    assert tiny().key != key


def test_what_is_needed_comes_first_and_once() -> None:
    first = tiny(0)
    cells = [tiny(1, needs=(first,)), tiny(2, needs=(first,)), first]
    assert [cell.label for cell in with_needs(cells)] == ["tiny 0", "tiny 1", "tiny 2"]


def test_finished_cells_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    cells = [tiny(0), tiny(1, needs=(tiny(0),))]
    first = run_cells(cells[1:], tmp_path, jobs=1, say=said.append)
    assert set(first) == {cell.key for cell in cells}
    assert said[0].startswith("0 of 2 cells") and len(said) == 3
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    monkeypatch.setattr(_cells, "ProcessPoolExecutor", NoWork)
    assert run_cells(cells, tmp_path, jobs=1, say=said.append) == first
    assert said[-1].startswith("2 of 2 cells")
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}


class NoWork:
    """A pool nothing may be handed to."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __enter__(self) -> NoWork:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_a_record_is_whole_or_absent(tmp_path: Path) -> None:
    cell = tiny()
    assert read(tmp_path, cell.key) is None
    record = compute(cell, tmp_path, cell.key)
    assert json.loads(json.dumps(record)) == read(tmp_path, cell.key)
    assert record["result"] == compute(cell, tmp_path, cell.key)["result"]  # the same arguments, the same numbers
    assert [path.name for path in (tmp_path / cell.key).iterdir()] == ["result.json"]
    (tmp_path / cell.key / "result.json").write_text('{"label": "ti')
    with pytest.raises(RheostatError, match="damaged"):
        run_cells([cell], tmp_path, say=lambda line: None)


def test_code_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="source changed"):
        compute(tiny(), tmp_path, "another key")
    assert not list(tmp_path.iterdir())
