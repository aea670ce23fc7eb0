"""Running studies, and finding, writing and reading their results."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rheostat.analysis.verdict import Outcome
from rheostat.errors import RheostatError, unknown
from rheostat.experiments.studies import declaration, tuning
from rheostat.experiments.studies.jobs import Record
from rheostat.experiments.studies.runner import StudyBar, Watcher, run_cells
from rheostat.experiments.studies.sources import commit, library_versions, machine
from rheostat.experiments.studies.study import Claim, Study, adjust, check, compact, content_of, measured_report, only_arms, report_of
from rheostat.experiments.study_files import FOLDER, RESULTS, studies_folder
from rheostat.json_text import DIGEST, NotJSON, loads, signed, unsigned
from rheostat.json_text import read as read_json

NO_STUDIES = ("rule_check", "base_curves")
"""Modules of the folder that are run by themselves."""
FORMAT = 1
"""Of a result's file; another one is refused."""
OLD_WORDS: dict[str, Outcome] = {"held": "supported", "not held": "refuted"}
"""Verdicts of results that are older than the rule."""


@dataclass(frozen=True)
class Finished:
    """The outcome of running a study.

    Attributes:
        result: the result as plain JSON, as it is written.
        path: where it was written.
        left_out: claims without a verdict because some of their arms were not requested.
    """

    result: dict[str, Any]
    path: Path
    left_out: tuple[str, ...] = ()


def study_names() -> list[str]:
    """Names of all studies, and of the tuned form of each whose search has been run."""
    folder = studies_folder()
    files = {path.stem.replace("_", "-") for path in folder.glob("*.py") if path.stem[0] != "_" and path.stem not in NO_STUDIES}
    tuned = {path.stem + tuning.SUFFIX for path in search_path(folder / RESULTS, "*").parent.glob("*.json") if path.stem in files}
    return sorted(files | tuned)


def load_study(slug: str) -> Study:
    """The study of a name; ``NAME-tuned`` is its tuned form.

    Raises:
        RheostatError: there is none, its file defines no ``STUDY``, or it has not been searched yet.
    """
    folder = studies_folder()
    base = slug.removesuffix(tuning.SUFFIX)
    if slug != base and base in study_names():
        published = load_study(base)
        tuning.of_study(published)
        return tuning.tuned_form(published, tuning.read_search(search_path(folder / RESULTS, base), base))
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
    """Path of the result of the whole study."""
    return studies_folder() / RESULTS / f"{slug}.json"


def cells_folder(slug: str) -> Path:
    """Default folder of finished cells."""
    return Path(os.environ.get("RHEOSTAT_RUNS", "runs")) / FOLDER / slug


def pilot_path(folder: Path, slug: str) -> Path:
    """Path of the result of a pilot, in the folder of results."""
    return folder / "pilots" / f"{slug}.json"


def search_path(folder: Path, slug: str) -> Path:
    """Path of what a study's search found, in the folder of results."""
    return folder / "searches" / f"{slug}.json"


def run_search(
    study: Study,
    *,
    jobs: int | None = None,
    cells: Path | None = None,
    output: Path | None = None,
    watcher: Watcher | None = None,
    command: str = "",
) -> tuple[dict[str, Any], Path]:
    """Give every arm of a study the same small search, and store what it found: the study ``NAME-tuned`` begins there.

    Args:
        study: that declares a search.
        jobs, cells, output, watcher, command: as in :func:`run_study`.

    Returns:
        What was found, and its file.

    Raises:
        RheostatError: the study declares no search, or its tuned form has been begun: that rests on the search before it.
    """
    wanted = tuning.search_cells(study)
    assert study.search is not None
    folder = cells or cells_folder(f"{study.slug}-search")
    out = output or studies_folder() / RESULTS
    path = search_path(out, study.slug)
    begun = study.slug + tuning.SUFFIX
    for place in (out / f"{begun}.json", pilot_path(out, begun)):
        if place.exists():
            raise RheostatError(f"{place} rests on the search in {path}; another one would be made after its results. Remove it first.")
    every = [cell for arms in wanted.values() for by_seed in arms.values() for cell in by_seed.values()]
    workers = len(os.sched_getaffinity(0)) if jobs is None else jobs
    records = run_cells(every, folder, jobs=workers, watcher=watcher or StudyBar(f"{study.slug}, search"))
    found = {
        "study": study.slug,
        "option": study.search.option,
        "values": list(study.search.values),
        "seeds": [tuning.SEARCH_SEED + index for index in range(study.search.seeds)],
        "arms": tuning.choices(study.search, wanted, records),
        "provenance": provenance(command or f"rheostat study {study.slug} --search", records),
    }
    _write(path, found)
    return found, path


def run_study(
    study: Study,
    *,
    smoke: bool = False,
    pilot: bool = False,
    preconditions: bool = False,
    seeds: int | None = None,
    arms: Sequence[str] = (),
    jobs: int | None = None,
    cells: Path | None = None,
    output: Path | None = None,
    watcher: Watcher | None = None,
    command: str = "",
    draw: Callable[[Study, dict[str, Any], Path], Any] | None = None,
) -> Finished:
    """Compute the missing cells, evaluate the claims, and write the result and its picture.

    The study as it is declared goes into ``studies/results`` and its pilot into ``studies/results/pilots``; with some arms only, or in
    smoke form, the result is written beside the cells. As declared, seeds are looked at after 8, 12, 16 and 24 until no claim is
    undecided, and claims whose precondition failed in the pilot are not run.

    Args:
        study: to run.
        smoke: the tiny form.
        pilot: a few seeds apart from those of the study; measures the preconditions and gives no verdicts.
        preconditions: of a pilot, only the cells that preconditions read; claims are not judged.
        seeds: the look up to which to go; of a pilot, how many seeds.
        arms: some arms only; claims that need others are computed but get no verdict.
        jobs: processes; None takes one per core, 0 computes in this process.
        cells: folder of finished cells.
        output: folder of the result and its picture.
        watcher: shows progress.
        command: stored as the one that makes the result.
        draw: of study, result and path, draws the picture beside the result (:func:`rheostat.reporting.study_figures.draw_into`).

    Raises:
        RheostatError: a pilot is missing, a look would be skipped, or the declaration has changed since the first seeds were run; see also
            :func:`rheostat.experiments.studies.study.check` and :func:`~rheostat.experiments.studies.runner.run_cells`.
    """
    if smoke and pilot:
        raise RheostatError("A study is run in smoke form or as a pilot, not both.")
    if preconditions and (not pilot or arms):
        raise RheostatError("Preconditions alone are run of a pilot, with all the arms that they need.")
    folder = cells or cells_folder(study.slug)
    form = "smoke" if smoke else "pilot" if pilot else "other" if arms else "declared"
    out = output or (result_path(study.slug).parent if form in ("declared", "pilot") else folder)
    workers = len(os.sched_getaffinity(0)) if jobs is None else jobs
    judged_by_looks = study.seeded and form in ("declared", "other")
    looks: tuple[int | None, ...] = (seeds,)
    if judged_by_looks:
        held = declaration.read_record(folder)
        looks = declaration.looks_to_take(study.slug, seeds, [] if held is None else held["looks"])
    conditions = _preconditions(study, out) if judged_by_looks and form == "declared" else {}
    records: dict[str, Record] = {}
    judged: dict[str, tuple[Claim, dict[str, Any]]] = {}
    claims: list[Claim] = []
    for look in looks[:1] if form == "other" and seeds is None else looks:
        claims = study.claims(study.sizes(smoke=smoke, pilot=pilot, seeds=look))
        claims = [claim for claim in claims if claim.seeded] if pilot else claims
        check(study, claims, pilot=pilot)
        if judged_by_looks:
            _hold_to_declaration(study, claims, folder, out)
        for claim in claims:  # not run: the pilot has shown that it cannot be tested here
            if declaration.not_testable(conditions.get(claim.name, [])):
                judged[claim.name] = claim, report_of(claim, {}, conditions[claim.name])
        watching = watcher or StudyBar(study.slug)
        if preconditions:
            while cells_read := declaration.read_next(claims, records):
                records |= run_cells(cells_read, folder, jobs=workers, watcher=watching)
            for claim, measured in zip(claims, declaration.measured(claims, records).values(), strict=True):
                judged[claim.name] = claim, measured_report(claim, measured)
            break
        waiting = [claim for claim in claims if claim.name not in judged or judged[claim.name][1]["verdict"] == "undecided"]
        wanted = only_arms(waiting, tuple(arms)) if arms else waiting
        records |= run_cells([cell for claim in wanted for cell in claim.cells], folder, jobs=workers, watcher=watching)
        complete = [claim for claim in waiting if all(cell.key in records for cell in claim.cells)]
        found = declaration.measured(complete, records) if pilot else conditions
        for claim in complete:
            judged[claim.name] = claim, report_of(claim, records, found.get(claim.name))
        if judged_by_looks:
            declaration.keep(folder, study.slug, declaration.declared(claims), look if form == "declared" else None)
        if all(report["verdict"] != "undecided" for _, report in judged.values()):
            break
    reports = [judged[claim.name][1] for claim in claims if claim.name in judged]
    used = [judged[claim.name][0] for claim in claims if claim.name in judged]
    adjust(reports)
    result = {
        "study": study.slug,
        "system": study.system,
        "paper": study.paper,
        "form": form,
        "pilot": any(report["pilot"] for report in reports),
        "declaration": declaration.declared(claims),
        "content": content_of(used),
        "verdicts": {report["name"]: report["verdict"] for report in reports},
        "claims": reports,
        **({} if study.searched is None else {"search": dict(study.searched)}),
        "provenance": provenance(command or f"rheostat study {study.slug}", records),
    }
    path = write_result(study, result, pilot_path(out, study.slug).parent if pilot else out) if reports else folder
    if reports and draw is not None:
        draw(study, result, path.with_suffix(".png"))
    return Finished(result, path, tuple(claim.name for claim in claims if claim.name not in judged))


def _preconditions(study: Study, out: Path) -> dict[str, list[dict[str, Any]]]:
    """The pilot's measurements, by claim.

    Raises:
        RheostatError: there is no pilot, or it lacks a precondition that is declared now.
    """
    path = pilot_path(out, study.slug)
    if not path.exists():
        raise RheostatError(f"The study {study.slug} has no pilot yet: run `rheostat study {study.slug} --pilot` first.")
    found = {claim["name"]: claim["preconditions"] for claim in read_result(path)["claims"]}
    for claim in study.claims(study.sizes()):
        held = {one["name"]: one["bounds"] for one in found.get(claim.name, [])}
        if claim.seeded and (claim.name not in found or held != {one.name: one.bounds for one in claim.preconditions}):
            raise RheostatError(
                f"The pilot of the study {study.slug} does not measure the preconditions of claim {claim.name!r} as they are declared: run "
                f"`rheostat study {study.slug} --pilot` again."
            )
    return found


def _hold_to_declaration(study: Study, claims: list[Claim], folder: Path, out: Path) -> None:
    """Store the declaration before the first cell, and refuse another declaration than that of the cells or of a result."""
    now = declaration.declared(claims)
    declaration.keep(folder, study.slug, now)
    path = out / f"{study.slug}.json"
    if path.exists():
        held = read_result(path)
        if held["form"] == "declared" and held["declaration"] is not None:
            declaration.require_same(study.slug, held["declaration"], now)


def provenance(command: str, records: dict[str, Record]) -> dict[str, Any]:
    """Provenance of the numbers: code, machine, versions and cost of the cells."""
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
    """Write ``<slug>.json`` with its format and its own digest; returns its path."""
    path = folder / f"{study.slug}.json"
    _write(path, result | {"format": FORMAT})
    return path


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write an object with its own digest; the file appears whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.writing")
        temporary.write_text(compact(signed(loads(compact(value)))))
        os.replace(temporary, path)
    except OSError as error:
        raise RheostatError(f"Could not write the result {path}: {error}; the cells are kept.") from error


def read_result(path: Path) -> dict[str, Any]:
    """A stored result; one that is older than the rule is a pilot, and its verdicts are given in today's words.

    Raises:
        RheostatError: it is missing, damaged, edited (it does not match its digest, or has none), or not of this form.
    """
    slug = path.stem
    try:
        result = _whole(read_json(path))
        for claim in result["claims"]:
            _ = claim["name"], claim["verdict"], claim["effect"], claim["arms"], claim["curves"]
        _ = result["study"], result["content"], result["provenance"]["commit"]
    except FileNotFoundError:
        raise RheostatError(f"The study {slug!r} has no result at {path}: run `rheostat study {slug}`.") from None
    except (OSError, NotJSON) as error:
        raise RheostatError(f"The result {path} is damaged ({error}): restore it, or run `rheostat study {slug}` again.") from error
    except (KeyError, TypeError) as error:
        raise RheostatError(f"The result {path} is no study's result ({error} is missing): run `rheostat study {slug}` again.") from error
    return result if "declaration" in result else _as_pilot(result)


def _whole(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored result without its format and its digest.

    Raises:
        NotJSON: it has no digest or another one, or it is of another format.
    """
    if DIGEST not in stored:
        raise NotJSON("it has no digest of its own")
    result = unsigned(stored)
    if (held := result.pop("format", None)) != FORMAT:
        raise NotJSON(f"its format is {held!r}, and this version reads {FORMAT}")
    return result


def _as_pilot(result: dict[str, Any]) -> dict[str, Any]:
    """A result that is older than the rule: claims of several seeds are pilots, whatever they were called."""
    for claim in result["claims"]:
        claim["verdict"] = OLD_WORDS.get(claim["verdict"], claim["verdict"])
        for condition in claim.get("conditions", []):
            condition["outcome"] = OLD_WORDS.get(condition["outcome"], condition["outcome"])
        claim |= {"margins": {}, "preconditions": [], "p_value": None, "holm_p": None, "pilot": len(claim.get("seeds", [])) > 1}
    verdicts = {claim["name"]: claim["verdict"] for claim in result["claims"]}
    return result | {"verdicts": verdicts, "pilot": any(claim["pilot"] for claim in result["claims"]), "declaration": None}


@dataclass(frozen=True)
class Standing:
    """The standing of a study's stored result today."""

    code: str
    """``current``, ``other code`` (or configuration), or ``none`` where there is no result."""
    kind: str = ""
    """``pilot``, ``looked at``, or ``exact`` without seeds."""
    seeds: tuple[int, ...] = ()
    """Fewest and most seeds of its claims."""
    commit: str = ""
    carried_to: str = ""
    """The commit that it was carried over to by equal golden runs."""
    golden: str = ""
    """Number of equal golden runs, by method."""
    declared: bool = True
    """Whether the declaration is still that of the result."""

    def __str__(self) -> str:
        if self.code == "none":
            return "none"
        seeds = " to ".join(map(str, dict.fromkeys(self.seeds)))
        kind = {"pilot": f"pilot, {seeds} seeds, decides nothing", "exact": "exact"}.get(self.kind, f"by the rule, {seeds} seeds")
        code = "of the present code" if self.code == "current" else f"of other code (commit {self.commit[:10]})"
        if self.carried_to:
            code += f", carried over from {self.commit[:10]} to {self.carried_to} by equal golden runs ({self.golden})"
        return f"{kind}, {code}" + ("" if self.declared else ", declared otherwise since")


def standing(study: Study) -> Standing:
    """The standing of a study's stored result today; where only a pilot has been run, the pilot's.

    Raises:
        RheostatError: the result or its pilot is damaged, or it was not made from the study as it is declared.
    """
    path = result_path(study.slug)
    stored = {each: read_result(each) for each in (path, pilot_path(path.parent, study.slug)) if each.exists()}
    if not stored:
        return Standing("none")
    path, result = next(iter(stored.items()))
    if result["form"] not in ("declared", "pilot"):
        raise RheostatError(f"{path} holds the {result['form']} form of the study: run `rheostat study {study.slug}`.")
    counts = [len(claim["seeds"]) for claim in result["claims"]]
    kind = "pilot" if result["pilot"] else "looked at" if study.seeded else "exact"
    code = "current" if _is_current(study, result) else "other code"
    seeds = (min(counts), max(counts)) if counts else ()
    source = result["provenance"]
    carried, golden = carried_over(source)
    return Standing(code, kind, seeds, source["commit"], carried, golden, _declares(study, result["declaration"]))


def _declares(study: Study, held: dict[str, Any] | None) -> bool:
    """Whether the study's declaration is that of a result; a result that is older than the rule has none."""
    return held is None or declaration.digest(held) == declaration.digest(declaration.declared(study.claims(study.sizes())))


def _is_current(study: Study, result: dict[str, Any]) -> bool:
    """Whether every claim was made by the present code and configuration."""
    if result["declaration"] is None:  # no claim stores its code
        return content_of(study.claims(study.sizes())) == result["content"]
    return all(
        held["verdict"] == "not testable here" or (claim is not None and content_of([claim]) == held.get("content"))
        for held, claim in present(study, result)
    )


def present(study: Study, result: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Claim | None]]:
    """The stored claims of a result, each with the study's present claim of as many seeds; None where there is none any more."""
    for held in result["claims"]:
        seeds = len(held["seeds"]) if study.seeded else None
        claims = study.claims(study.sizes(pilot=result["form"] == "pilot", seeds=seeds))
        yield held, next((claim for claim in claims if claim.name == held["name"]), None)


def carried_over(source: Mapping[str, Any]) -> tuple[str, str]:
    """The commit that a result was carried over to (:mod:`rheostat.experiments.studies.restamp`), shortened, and how many equal golden runs
    of each method that rests on; empty if it was not. The last step says all: each is compared with the commits of the cells."""
    steps = source.get("carried_over", [])
    return (steps[-1]["to"][:10], golden_text(steps[-1]["golden"])) if steps else ("", "")


def golden_text(golden: Mapping[str, int]) -> str:
    """Numbers of golden runs by method, as text."""
    return ", ".join(f"{method} {count}" for method, count in golden.items())
