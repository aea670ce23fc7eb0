"""The provenance of results: the syntax of the source, the versions of libraries, the commit, the machine.

The hash of a piece of code covers the syntax trees, without comments and docstrings, of its module and of every module of this repository
that it imports, directly or through others (parent packages' ``__init__`` files, which only hold a docstring, are left out, and so are
modules that only display). Editing a comment or an unrelated file therefore changes nothing. Modules that are found by name at run time
(methods by their table, environments by their id) are not found by following imports: the caller names them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import math
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError

PACKAGES = ("rheostat", "studies")
SHOWS_ONLY = (
    "rheostat.terminal",
    "rheostat.training.progress",
    "rheostat.training.sinks",
    "rheostat.training.doctor",
    "rheostat.training.describe",
    "rheostat.reporting.plots",
    "rheostat.reporting.report",
    "rheostat.experiments.display",
)
"""Modules that no result depends on."""
LIBRARIES = ("torch", "tensordict", "numpy", "gymnasium", "envpool", "mujoco", "transformers")
"""Libraries whose versions a result depends on."""


@cache
def code_hash(roots: tuple[str, ...]) -> str:
    """Hash of the syntax of ``roots`` and of all they import from this repository."""
    digest = hashlib.sha256()
    for name, path in sorted(source_files(roots).items()):
        digest.update(f"{name}\n{_read(path)[0]}\n".encode())
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
        if name in found or path is None or name in SHOWS_ONLY:
            continue
        found[name] = path
        todo += _read(path)[1]
    return found


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """The syntax of a file, and all modules that it may import; a process reads a file once, however many studies share it."""
    source = path.read_text()
    named: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return meaning(source), tuple(named)


def meaning(source: str) -> str:
    """The syntax of a module without comments, docstrings, layout and line numbers."""
    return ast.dump(bare(ast.parse(source)))


def bare(tree: ast.AST) -> ast.AST:
    """A syntax tree without its docstrings (changed in place)."""

    class Bare(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
            return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    return Bare().visit(tree)


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
    names = {os.path.relpath(path.resolve(), Path(top).resolve()) for path in source_files(roots).values()}
    return sorted(changed & names)


def machine() -> dict[str, Any]:
    """Processor, cores and memory; no names."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if line.startswith("model name")]
        model = models[0] if models else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else math.nan
    return {"processor": model, "cores": os.cpu_count(), "memory_gb": round(memory, 1), "system": platform.system()}


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    try:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
