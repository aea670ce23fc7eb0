"""Cells: keys that cover what matters, results that are stored once and never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.experiments.studies import jobs as cells_module
from rheostat.experiments.studies import runner
from rheostat.experiments.studies.jobs import Cell, Record, compute, read, with_needs
from rheostat.experiments.studies.runner import run_cells
from rheostat.experiments.studies.sources import meaning, source_files

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
    assert "rheostat.methods.control.props" not in files  # found by name at run time: the cell has to say so
    assert "rheostat.methods.control.props" in source_files(("studies._fixed_target", "rheostat.methods.control.props"))
    assert "rheostat.training.progress" not in files  # what only displays does not make results stale


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(RheostatError, match="no_such_method"):
        source_files(("rheostat.methods.no_such_method",))


def test_the_key_covers_arguments_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    key = tiny().key
    assert tiny().key == key != tiny(1).key
    monkeypatch.setattr(cells_module, "code_hash", lambda roots: "other code")
    assert tiny().key != key
    monkeypatch.undo()
    monkeypatch.setattr(cells_module, "library_versions", lambda: {"torch": "0"})
    assert tiny().key != key


def test_what_is_needed_comes_first_and_once() -> None:
    first = tiny(0)
    cells = [tiny(1, needs=(first,)), tiny(2, needs=(first,)), first]
    assert [cell.label for cell in with_needs(cells)] == ["tiny 0", "tiny 1", "tiny 2"]


class Seen:
    """Remembers what a display is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, cells: Any, stored: int, jobs: int) -> None:
        self.lines.append(f"{stored} stored, {len(cells)} to compute")

    def finished(self, cell: Cell, record: Record) -> None:
        self.lines.append(cell.label)

    def stop(self) -> None:
        self.lines.append("stop")


def test_finished_cells_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    cells = [tiny(0), tiny(1, needs=(tiny(0),))]
    first = run_cells(cells[1:], tmp_path, jobs=1, watcher=seen)
    assert set(first) == {cell.key for cell in cells}
    assert seen.lines == ["0 stored, 2 to compute", "tiny 0", "tiny 1", "stop"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    monkeypatch.setattr(runner, "compute", lambda *arguments: pytest.fail("computed again"))
    assert run_cells(cells, tmp_path, jobs=0, watcher=seen) == first
    assert seen.lines[-2:] == ["2 stored, 0 to compute", "stop"]
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}


def test_what_was_left_running_is_waited_for_and_taken(tmp_path: Path) -> None:
    """A record that appears while a second process waits for the cell is not computed again."""
    cell = tiny()
    record = compute(cell, tmp_path, cell.key)
    stamp = (tmp_path / cell.key / "result.json").stat().st_mtime_ns
    assert compute(cell, tmp_path, cell.key) == record
    assert (tmp_path / cell.key / "result.json").stat().st_mtime_ns == stamp


def test_a_result_is_current_whatever_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny(0)
    cell = Cell(first.function, first.arguments | {"target": first.key}, "second", needs=(first,))
    before = cell.content, cell.key
    monkeypatch.setattr(cells_module, "library_versions", lambda: {"torch": "0"})
    other = Cell(first.function, first.arguments | {"target": first.key}, "second", needs=(first,))
    assert other.content == before[0] and other.key != before[1]


def test_a_record_is_whole_or_absent(tmp_path: Path) -> None:
    cell = tiny()
    assert read(tmp_path, cell.key) is None
    record = compute(cell, tmp_path, cell.key)
    assert json.loads(json.dumps(record)) == read(tmp_path, cell.key)
    (tmp_path / cell.key / "result.json").unlink()
    assert record["result"] == compute(cell, tmp_path, cell.key)["result"]  # the same arguments, the same numbers
    assert [path.name for path in (tmp_path / cell.key).iterdir()] == ["result.json"]
    (tmp_path / cell.key / "result.json").write_text('{"label": "ti')
    with pytest.raises(RheostatError, match="damaged"):
        run_cells([cell], tmp_path)


def test_code_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="source changed"):
        compute(tiny(), tmp_path, "another key")
    assert not list(tmp_path.iterdir())
