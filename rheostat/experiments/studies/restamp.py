"""Carrying a result over to the present source, where the golden runs of its methods show that no number has changed.

Cells are keyed by source, so a change of structure makes every result one "of other code", although it computes the same. The golden runs
(``tests/golden/table.json``) hold weights and metrics of every method as hashes. Where the rows of all methods of a study are the same at
the commits its cells were computed at and now, the result may stand for the present source. That is written beside its commit, with the
rows it rests on, and shown wherever the commit is. Everything else that the result was made from must be what it was: the study's own
modules, the arms and their options, and the declaration.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.experiments.studies import declaration
from rheostat.experiments.studies.jobs import Cell, with_needs
from rheostat.experiments.studies.results import golden_text, present, read_result, write_result
from rheostat.experiments.studies.sources import meaning, source_files
from rheostat.experiments.studies.study import Claim, Study, arms_of, content_of
from rheostat.experiments.study_files import FOLDER
from rheostat.methods import table

TABLE = "tests/golden/table.json"


@dataclass(frozen=True)
class Carried:
    """The evidence by which a result was carried over."""

    commits: tuple[str, ...]
    """Those its cells were computed at."""
    to: str
    """The commit of the present source."""
    golden: dict[str, int]
    """Equal golden runs by method."""

    def __str__(self) -> str:
        commits = " and ".join(commit[:10] for commit in self.commits)
        return f"carried over from {commits} to {self.to[:10]} by equal golden runs ({golden_text(self.golden)})"


def restamp(study: Study, path: Path, root: Path) -> Carried | None:
    """Carry a stored result over to the present source; None where it is of the present source already.

    Args:
        study: as it is now.
        path: of its result, which is written again.
        root: of the repository.

    Raises:
        RheostatError: why the result cannot be carried over; nothing is written then.
    """
    result = read_result(path)
    pairs = [(held, claim) for held, claim in present(study, result) if held["verdict"] != "not testable here"]
    if pairs and all(claim is not None and content_of([claim]) == held.get("content") for held, claim in pairs):
        return None
    source = result["provenance"]
    if source.get("uncommitted_sources"):
        raise RheostatError(f"no commit holds its code: it was made with uncommitted changes in {', '.join(source['uncommitted_sources'])}")
    repository = Repository(root)
    claims = _same_claims(pairs)
    cells = with_needs(cell for claim in claims for cell in claim.cells)
    files = sources_of(cells, root)
    commits = tuple(sorted(source.get("cell_commits") or [source["commit"]]))
    golden = equal_rows(methods_of(cells), commits, repository)
    for commit in commits:
        _require_same_sources([file for name, file in files.items() if name.split(".")[0] == FOLDER], commit, repository)
    _require_same_declaration(study, result, pairs)
    repository.require_clean([*files.values(), TABLE])
    carried = Carried(commits, repository.head(), golden)
    for held, claim in pairs:
        assert claim is not None
        held["content"] = content_of([claim])
    result["content"] = content_of(claims)
    step = {"to": carried.to, "date": datetime.now(UTC).date().isoformat(), "golden": golden}
    source["carried_over"] = [*source.get("carried_over", []), step]
    write_result(study, result, path.parent)
    return carried


# --- conditions --------------------------------------------------------------------------------------------------------------------------


def methods_of(cells: Sequence[Cell]) -> list[str]:
    """Methods of the table that cells train, by argument or by the modules they name.

    Raises:
        RheostatError: a cell trains none, so that no golden run covers it.
    """
    modules = {entry.path.split(":")[0]: name for name, entry in table.METHODS.items()}
    found = set()
    for cell in cells:
        named = {cell.arguments.get("method")} | {modules.get(module) for module in cell.sources}
        mine = {name for name in named if name in table.METHODS}
        if not mine:
            raise RheostatError(f"no golden run covers its cell {cell.label!r}, which trains no method of the table")
        found |= mine
    return sorted(found)


def equal_rows(methods: Iterable[str], commits: Iterable[str], repository: Repository) -> dict[str, int]:
    """How many golden runs of every method are the same at some commits and now.

    Raises:
        RheostatError: a table that is missing or of other numerics, a method without a row at a commit, or a row that differs.
    """
    now = repository.golden(None)
    found: dict[str, int] = {}
    for commit in commits:
        then = repository.golden(commit)
        if then["numerics"] != now["numerics"]:
            raise RheostatError(f"the golden runs at {commit[:10]} come from other numerics, so hashes cannot be compared")
        for method in methods:
            rows = {name: row for name, row in then["cases"].items() if name.partition("/")[0] == method}
            if not rows:
                raise RheostatError(f"the method {method} has no golden run at {commit[:10]}")
            moved = sorted(name for name, row in rows.items() if row != now["cases"].get(name))
            if moved:
                raise RheostatError(f"golden runs differ since {commit[:10]}: {', '.join(moved)}")
            found[method] = min(len(rows), found.get(method, len(rows)))
    return found


def sources_of(cells: Sequence[Cell], root: Path) -> dict[str, str]:
    """Modules that cells run, and their paths in the repository."""
    roots = {module for cell in cells for module in (cell.function.split(":")[0], *cell.sources)}
    found = source_files(tuple(sorted(roots)))
    return {name: str(path.resolve().relative_to(root.resolve())) for name, path in sorted(found.items())}


def _same_claims(pairs: Sequence[tuple[Mapping[str, Any], Claim | None]]) -> list[Claim]:
    """Today's claims behind the stored ones.

    Raises:
        RheostatError: a claim is gone, or its arms are others.
    """
    found = []
    for held, claim in pairs:
        if claim is None:
            raise RheostatError(f"the study no longer makes its claim {held['name']!r}")
        found.append(claim)
    if not found:
        raise RheostatError("none of its claims could be tested, so no cell was computed")
    return found


def _require_same_declaration(study: Study, result: Mapping[str, Any], pairs: Sequence[tuple[Mapping[str, Any], Claim | None]]) -> None:
    """Refuse where the declaration has changed, or where arms have other options."""
    if result["declaration"] is None:
        raise RheostatError("it is older than the rule, and does not say what was declared")
    if result["form"] == "declared":
        declaration.require_same(study.slug, result["declaration"], declaration.declared(study.claims(study.sizes())))
    for held, claim in pairs:
        assert claim is not None
        mine = json.loads(json.dumps(arms_of(claim)))
        different = sorted(name for name in {*mine, *held["arms"]} if mine.get(name) != held["arms"].get(name))
        if different:
            raise RheostatError(f"the arm {different[0]!r} of claim {held['name']!r} has other options, or another task or budget, now")


def _require_same_sources(files: Sequence[str], commit: str, repository: Repository) -> None:
    """Refuse where a module of the study itself is other code than at a commit: no golden run covers it."""
    for file in files:
        then = repository.text(commit, file)
        if then is None or meaning(then) != meaning((repository.root / file).read_text()):
            raise RheostatError(f"the study's own module {file} is other code than at {commit[:10]}, which no golden run covers")


# --- the repository ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repository:
    """A git repository, read only."""

    root: Path

    def run(self, *words: str) -> str | None:
        """The output of a git command; None where it fails."""
        try:
            return subprocess.run(["git", "-C", str(self.root), *words], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None

    def head(self) -> str:
        """The present commit.

        Raises:
            RheostatError: there is none.
        """
        found = self.run("rev-parse", "HEAD")
        if found is None:
            raise RheostatError(f"{self.root} is no git repository, so the commits cannot be compared")
        return found.strip()

    def require_clean(self, names: Sequence[str]) -> None:
        """Refuse uncommitted changes: a stamp names a commit.

        Raises:
            RheostatError: some of the files or folders differ from the present commit.
        """
        self.head()
        changed = [line[3:] for line in (self.run("status", "--porcelain", "--untracked-files=all", "--", *names) or "").splitlines()]
        if changed:
            raise RheostatError(f"there are uncommitted changes in {', '.join(changed[:3])}, and a stamp names a commit: commit first")

    def text(self, commit: str, file: str) -> str | None:
        """A file at a commit."""
        return self.run("show", f"{commit}:{file}")

    def golden(self, commit: str | None) -> dict[str, Any]:
        """The table of golden runs at a commit, or now.

        Raises:
            RheostatError: an unknown commit, or no table there.
        """
        if commit is not None and self.run("cat-file", "-e", f"{commit}^{{commit}}") is None:
            raise RheostatError(f"the commit {commit[:10]} is not in this repository")
        path = self.root / TABLE
        text = self.text(commit, TABLE) if commit is not None else path.read_text() if path.exists() else None
        if text is None:
            raise RheostatError(f"there is no table of golden runs {'at ' + commit[:10] if commit else 'in ' + str(self.root)}")
        return dict(json.loads(text))
