"""Cells of a study: units of work of one process, stored on disk under a hash of everything their result depends on.

A cell is a function of plain arguments (one arm, task and seed, say). Its key hashes the arguments, the versions of the libraries that
compute, and the meaning of the source (:mod:`rheostat.experiments.studies.sources`). So a finished cell is never computed twice, and
results of different code or configuration can never be mixed: they have different keys.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.experiments.studies.sources import code_hash, commit, library_versions, uncommitted
from rheostat.json_text import NotJSON, signed, unsigned
from rheostat.json_text import read as read_json
from rheostat.locks import held

FORMAT = 1
"""Cells of earlier versions say no format, and have no digest."""
MOST_BYTES = 256 * 2**20
"""That a cell's record may have."""
Record = dict[str, Any]
"""The stored record of a cell: ``label``, ``function``, ``arguments``, ``seconds``, ``commit``, ``uncommitted`` and ``result``."""


@dataclass(frozen=True)
class Cell:
    """One piece of work."""

    function: str
    """``module:name`` of a function of (arguments, the cell's own folder) that returns plain JSON. Files it leaves in its folder are
    found by cells that need it, beside their own."""
    arguments: dict[str, Any]
    """Plain JSON; together with the code it determines the result."""
    label: str
    """For the display."""
    cost: float = 1.0
    """Expected seconds, for the estimate of the time left."""
    needs: tuple[Cell, ...] = ()
    """Cells whose files this one reads; their keys belong into the arguments."""
    sources: tuple[str, ...] = ()
    """Modules that the function finds by name at run time."""

    @property
    def key(self) -> str:
        """Key of the stored result."""
        return _hash(self._described() | {"versions": library_versions()})

    @property
    def content(self) -> str:
        """Hash of arguments and code only: whether a result still belongs to this repository, wherever it was computed."""
        text = json.dumps(self._described(), sort_keys=True)
        for need in self.needs:
            text = text.replace(need.key, need.content)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def _described(self) -> dict[str, Any]:
        roots = (self.function.split(":")[0], *self.sources)
        return {"function": self.function, "arguments": self.arguments, "code": code_hash(roots)}


def compute(cell: Cell, folder: Path, key: str) -> Record:
    """Run one cell and store its record under ``key``; the record appears whole or not at all.

    A left-over process of an interrupted study may compute the same cell: then this waits for it, and takes its result.

    Raises:
        RheostatError: the code is no longer what the key was made from.
    """
    if cell.key != key:
        raise RheostatError(f"The source changed while the study ran, before {cell.label!r}: start it again (finished cells are kept).")
    module, name = cell.function.split(":")
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
    with held(folder / f".{key}.lock", f"the cell {cell.label!r}", patience=math.inf):
        done = read(folder, key)
        if done is not None:
            return done
        began = time.monotonic()
        result = getattr(importlib.import_module(module), name)(cell.arguments, place)
        record = {
            "label": cell.label,
            "function": cell.function,
            "arguments": cell.arguments,
            "seconds": round(time.monotonic() - began, 2),
            "commit": commit(),
            "uncommitted": uncommitted((module, *cell.sources)),
            "result": result,
        }
        store(place, record)
    return record


def store(place: Path, record: Record) -> None:
    """Write a record into the folder of its cell, with its digest; it appears whole or not at all."""
    temporary = place / f".result.{os.getpid()}.json"
    temporary.write_text(json.dumps(signed(record | {"format": FORMAT})))
    os.replace(temporary, place / "result.json")


def read(folder: Path, key: str) -> Record | None:
    """A stored record, or None.

    Raises:
        RheostatError: the file is damaged.
    """
    path = folder / key / "result.json"
    try:
        record = unsigned(read_json(path, at_most=MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, NotJSON) as error:
        raise RheostatError(f"The stored cell {path} is damaged ({error}): delete it, and it will be computed again.") from error
    if record.pop("format", FORMAT) != FORMAT:
        raise RheostatError(f"The stored cell {path} is of another version of Rheostat: delete it, and it will be computed again.")
    wrong = [name for name in ("label", "function", "arguments", "seconds", "result") if name not in record]
    if wrong:
        raise RheostatError(f"The stored cell {path} is damaged (it has no {wrong[0]}): delete it, and it will be computed again.")
    return record


def with_needs(cells: Iterable[Cell]) -> list[Cell]:
    """The cells and all cells they need, each after those it needs."""
    ordered: dict[str, Cell] = {}
    for cell in cells:
        for need in (*with_needs(cell.needs), cell):
            ordered.setdefault(need.key, need)
    return list(ordered.values())


def _hash(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:20]
