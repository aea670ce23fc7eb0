"""Running studies, and finding, writing and reading their results."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rheostat
from rheostat.errors import RheostatError, unknown
from rheostat.experiments.studies.jobs import Record
from rheostat.experiments.studies.runner import StudyBar, Watcher, run_cells
from rheostat.experiments.studies.sources import commit, library_versions, machine
from rheostat.experiments.studies.study import Claim, Study, check, compact, content_of, only_arms, overall, report_of

FOLDER = "studies"


@dataclass(frozen=True)
class Finished:
    """What running a study gave.

    Attributes:
        result: the result as plain JSON, as it is written.
        path: where it was written.
        left_out: claims that were not judged because some of their arms were not asked for.
    """

    result: dict[str, Any]
    path: Path
    left_out: tuple[str, ...] = ()


def studies_folder() -> Path:
    """The folder ``studies`` of the working directory, else that of the repository this package is installed from.

    Raises:
        RheostatError: there is neither.
    """
    for place in (Path.cwd(), Path(rheostat.__file__).resolve().parent.parent):
        if any(path.stem[0] != "_" for path in (place / FOLDER).glob("*.py")):
            return place / FOLDER
    raise RheostatError("There is no folder 'studies' here: run this in a checkout of Rheostat, or in a folder with studies of your own.")


def study_names() -> list[str]:
    """Slugs of all studies."""
    return sorted(path.stem.replace("_", "-") for path in studies_folder().glob("*.py") if path.stem[0] != "_")


def load_study(slug: str) -> Study:
    """The study of a name.

    Raises:
        RheostatError: there is none, or its file defines no ``STUDY``.
    """
    folder = studies_folder()
    if slug not in study_names():
        raise unknown("study", slug, study_names())
    if str(folder.parent) not in sys.path:
        sys.path.insert(0, str(folder.parent))
    module = importlib.import_module(f"{FOLDER}.{slug.replace('-', '_')}")
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise RheostatError(f"{folder / slug}.py defines no STUDY: see the guide on adding a study.")
    return study


def result_path(slug: str) -> Path:
    """Where the result of the whole study lies."""
    return studies_folder() / "results" / f"{slug}.json"


def cells_folder(slug: str) -> Path:
    """Where finished cells are kept by default."""
    return Path(os.environ.get("RHEOSTAT_RUNS", "runs")) / FOLDER / slug


def run_study(
    study: Study,
    *,
    smoke: bool = False,
    seeds: int | None = None,
    arms: Sequence[str] = (),
    jobs: int | None = None,
    cells: Path | None = None,
    output: Path | None = None,
    watcher: Watcher | None = None,
    command: str = "",
) -> Finished:
    """Compute what is missing, judge, and write the result and its picture.

    Only the study as it is declared goes into ``studies/results``; with other seeds, some arms only, or in smoke form the result is
    written beside the cells.

    Args:
        study: what to run.
        smoke: the tiny form.
        seeds: another number of seeds.
        arms: some arms only; claims that need others are computed but not judged.
        jobs: processes; None takes one per core, 0 computes in this process.
        cells: folder of finished cells.
        output: folder of the result and its picture.
        watcher: shows progress.
        command: noted down as the one that makes the result.

    Raises:
        RheostatError: see :func:`rheostat.experiments.studies.study.check` and :func:`~rheostat.experiments.studies.runner.run_cells`.
    """
    folder = cells or cells_folder(study.slug)
    workers = len(os.sched_getaffinity(0)) if jobs is None else jobs
    declared = not smoke and seeds is None and not arms
    out = output or (result_path(study.slug).parent if declared else folder)
    looks: tuple[int | None, ...] = (seeds,)
    if study.sequential is not None and declared:
        looks = study.sequential.looks
    for look in looks:
        sizes = study.sizes(smoke=smoke, seeds=look)
        claims = study.claims(sizes)
        check(study, claims)
        wanted = only_arms(claims, tuple(arms)) if arms else claims
        records = run_cells(
            [cell for claim in wanted for cell in claim.cells], folder, jobs=workers, watcher=watcher or StudyBar(study.slug)
        )
        judged = [claim for claim in claims if all(cell.key in records for cell in claim.cells)]
        reports = [report_of(claim, records) for claim in judged]
        if len(looks) == 1 or overall(reports) != "undecided":
            break
    result = {
        "study": study.slug,
        "system": study.system,
        "paper": study.paper,
        "form": "smoke" if smoke else "declared" if declared else "other",
        "content": content_of(judged),
        "verdicts": {report["name"]: report["verdict"] for report in reports},
        "claims": reports,
        "provenance": provenance(command or f"rheostat study {study.slug}", judged, records),
    }
    path = write_result(study, result, out) if reports else folder
    return Finished(result, path, tuple(claim.name for claim in claims if claim not in judged))


def provenance(command: str, claims: Sequence[Claim], records: dict[str, Record]) -> dict[str, Any]:
    """Where the numbers come from: code, machine, versions and cost of the cells."""
    used = list(records.values())
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "cell_commits": sorted({record["commit"] for record in used}),
        "uncommitted_sources": sorted({name for record in used for name in record["uncommitted"]}),
        "machine": machine(),
        "versions": library_versions(),
        "cells": len(used),
        "cpu_hours": round(sum(record["seconds"] for record in used) / 3600, 2),
    }


def write_result(study: Study, result: dict[str, Any], folder: Path) -> Path:
    """Write ``<slug>.json`` and its picture ``<slug>.png``; returns the path of the former."""
    path = folder / f"{study.slug}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.writing")
        temporary.write_text(compact(result))
        os.replace(temporary, path)
    except OSError as error:
        raise RheostatError(f"Could not write the result {path}: {error}; the cells are kept.") from error
    draw_into(study, result, path.with_suffix(".png"))
    return path


def draw_into(study: Study, result: dict[str, Any], path: Path) -> Path:
    """The study's picture; the suffix (.png or .svg) is the format. Returns the path."""
    from rheostat.reporting.study_figures import draw_result

    (study.draw or draw_result)(result, path)
    return path


def read_result(path: Path) -> dict[str, Any]:
    """A stored result.

    Raises:
        RheostatError: it is missing, damaged, or not of this form.
    """
    slug = path.stem
    try:
        result = json.loads(path.read_text())
        for claim in result["claims"]:
            _ = claim["name"], claim["verdict"], claim["effect"], claim["arms"], claim["curves"]
        _ = result["study"], result["content"], result["provenance"]["commit"]
    except FileNotFoundError:
        raise RheostatError(f"The study {slug!r} has no result at {path}: run `rheostat study {slug}`.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RheostatError(f"The result {path} is damaged ({error}): restore it, or run `rheostat study {slug}` again.") from error
    except (KeyError, TypeError) as error:
        raise RheostatError(f"The result {path} is no study's result ({error} is missing): run `rheostat study {slug}` again.") from error
    return result


def standing(study: Study) -> str:
    """What the stored result of a study is worth today: ``current``, ``other code`` (or configuration), or ``none``.

    Raises:
        RheostatError: the result is damaged, or it was not made from the study as it is declared.
    """
    path = result_path(study.slug)
    if not path.exists():
        return "none"
    result = read_result(path)
    if result["form"] != "declared":
        raise RheostatError(f"{path} holds the {result['form']} form of the study: run `rheostat study {study.slug}`.")
    claims = study.claims(study.sizes(seeds=_seeds_of(study, result)))
    return "current" if content_of(claims) == result["content"] else "other code"


def _seeds_of(study: Study, result: dict[str, Any]) -> int | None:
    """With sequential stopping, the look at which it stopped."""
    return len(result["claims"][0]["seeds"]) if study.sequential is not None else None
