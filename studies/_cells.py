"""Cells of a study: what one process computes in one go, kept on disk under a hash of everything its result depends on.

A cell is a function of plain arguments (one arm, task and seed, say). Its key hashes the arguments, the versions of the libraries that
compute, and the *meaning* of the source: the syntax trees, without comments and docstrings, of the cell's own module and of every
module of this repository that it imports, directly or through others (parent packages' ``__init__`` files, which only hold a sentence,
are left out). So a finished cell is never computed twice, editing a comment or an unrelated file keeps it, and results of different
code or configuration can never be mixed: they have different keys.

Modules that are found by name at run time (methods by their table, worlds by their id) are not seen by following imports: a cell names
them in ``sources``.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError

PACKAGES = ("rheostat", "studies")
LIBRARIES = ("torch", "tensordict", "numpy", "gymnasium", "envpool", "mujoco")
"""Whose versions a result depends on."""


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
    """Expected seconds, for the estimate of what is left."""
    needs: tuple[Cell, ...] = ()
    """Cells whose files this one reads; their keys belong into the arguments."""
    sources: tuple[str, ...] = ()
    """Modules that the function finds by name at run time."""

    @property
    def key(self) -> str:
        """What the result is stored under."""
        described = {
            "function": self.function,
            "arguments": self.arguments,
            "code": code_hash((self.function.split(":")[0], *self.sources)),
            "versions": library_versions(),
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:20]


def run_cells(cells: Sequence[Cell], folder: Path, *, jobs: int = 2, say: Callable[[str], None] = print) -> dict[str, dict[str, Any]]:
    """Compute what is not stored yet, each cell in a process of its own pool, and return everything.

    Args:
        cells: what is wanted; what they need is added.
        folder: where cells are stored, one subfolder each.
        jobs: processes; they run at low priority with one torch thread each.
        say: told about every finished cell.

    Returns:
        Stored records by key: ``result``, ``seconds``, ``commit``, ``uncommitted``.

    Raises:
        RheostatError: a stored cell cannot be read, or the source changed meanwhile.
        Exception: whatever a cell raised; those that finished before are kept.
    """
    every = {cell.key: cell for cell in with_needs(cells)}
    done = {key: record for key in every if (record := read(folder, key)) is not None}
    waiting = {key: cell for key, cell in every.items() if key not in done}
    say(f"{len(done)} of {len(every)} cells are stored; {len(waiting)} to compute in {jobs} processes.")
    total, finished, began = sum(cell.cost for cell in waiting.values()), 0.0, time.monotonic()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_be_polite) as pool:
        running: dict[Future[dict[str, Any]], str] = {}
        try:
            while waiting or running:
                ready = [key for key, cell in waiting.items() if all(need.key in done for need in cell.needs)]
                for key in ready[: 2 * jobs - len(running)]:
                    running[pool.submit(compute, waiting.pop(key), folder, key)] = key
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(future)
                    done[key] = future.result()
                    finished += every[key].cost
                    left = (time.monotonic() - began) * (total - finished) / finished
                    say(f"[{len(done)}/{len(every)}] {every[key].label}: {done[key]['seconds']:.1f} s; about {_duration(left)} left")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done


def compute(cell: Cell, folder: Path, key: str) -> dict[str, Any]:
    """Run one cell and store its record under ``key``; the record appears whole or not at all.

    Raises:
        RheostatError: the code is no longer what the key was made from.
    """
    if cell.key != key:
        raise RheostatError(f"The source changed while the study ran, before {cell.label!r}: start it again (finished cells are kept).")
    module, name = cell.function.split(":")
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
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
    temporary = place / f".result.{os.getpid()}.json"
    temporary.write_text(json.dumps(record))
    os.replace(temporary, place / "result.json")
    return record


def read(folder: Path, key: str) -> dict[str, Any] | None:
    """A stored record, or None.

    Raises:
        RheostatError: the file is damaged.
    """
    path = folder / key / "result.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise RheostatError(f"The stored cell {path} is damaged ({error}): delete it, and it will be computed again.") from error


def with_needs(cells: Iterable[Cell]) -> list[Cell]:
    """The cells and everything they need, each before what needs it."""
    ordered: dict[str, Cell] = {}
    for cell in cells:
        for need in (*with_needs(cell.needs), cell):
            ordered.setdefault(need.key, need)
    return list(ordered.values())


# --- what a result depends on ----------------------------------------------------------------------------------------------------------


@cache
def code_hash(roots: tuple[str, ...]) -> str:
    """Hash of the syntax of ``roots`` and of all they import from this repository."""
    digest = hashlib.sha256()
    for name, path in sorted(source_files(roots).items()):
        digest.update(f"{name}\n{meaning(path.read_text())}\n".encode())
    return digest.hexdigest()


@cache
def source_files(roots: tuple[str, ...]) -> dict[str, Path]:
    """Modules of this repository reachable from ``roots`` by import statements, and their files.

    Raises:
        RheostatError: a root that is no module of this repository.
    """
    found: dict[str, Path] = {}
    todo = list(roots)
    for name in roots:
        if _locate(name) is None:
            raise RheostatError(f"The study names a module {name!r} that does not exist.")
    while todo:
        name = todo.pop()
        path = _locate(name)
        if name in found or path is None:
            continue
        found[name] = path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def meaning(source: str) -> str:
    """The syntax of a module without comments, docstrings, layout and line numbers."""

    class Bare(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
            return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    return ast.dump(Bare().visit(ast.parse(source)))


def _locate(name: str) -> Path | None:
    """The file of one of this repository's modules; None for packages and for anything else."""
    package, *rest = name.split(".")
    if package not in PACKAGES:
        return None
    origin = importlib.import_module(package).__file__
    assert origin is not None
    path = Path(origin).parent.joinpath(*rest).with_suffix(".py")
    return path if rest and path.is_file() else None


@cache
def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that compute."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def commit() -> str:
    """The commit of this repository's files, empty outside git."""
    return _git("rev-parse", "HEAD").strip()


@cache
def uncommitted(roots: tuple[str, ...]) -> list[str]:
    """Files among the sources of ``roots`` that differ from the commit."""
    top = _git("rev-parse", "--show-toplevel").strip()
    if not top:
        return []
    changed = {line[3:] for line in _git("status", "--porcelain", "--untracked-files=all").splitlines()}
    names = {str(path.resolve().relative_to(Path(top).resolve())) for path in source_files(roots).values()}
    return sorted(changed & names)


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    try:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _be_polite() -> None:
    """Low priority and one thread: other work on the machine goes first."""
    import torch

    os.nice(10)
    torch.set_num_threads(1)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
