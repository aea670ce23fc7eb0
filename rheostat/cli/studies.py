"""The commands ``rheostat study`` and ``rheostat claims``."""

from __future__ import annotations

import shlex
import sys
from builtins import list as list_of
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from rheostat.errors import RheostatError
from rheostat.experiments import MOST_JOBS, MOST_SEEDS
from rheostat.options import option
from rheostat.remembered import remembered
from rheostat.terminal import print_json, print_table

if TYPE_CHECKING:
    from rheostat.experiments.studies.claims import Row


@dataclass
class StudyCommand:
    """Run a study: arms x seeds over the cores; finished cells are kept, so a second call continues."""

    name: Positional[str] = ""
    """Name of the study; --list shows them. With --smoke, no name means every study."""
    list: bool = False
    """List the studies and the standing of their results."""
    restamp: bool = False
    """Carry results over to the present code where the golden runs of their methods are equal; no name means every study. Runs nothing."""
    smoke: bool = False
    """A tiny form of everything, in seconds; proves nothing."""
    pilot: bool = False
    """A few seeds apart from those of the study: measures what it needs, decides nothing. It comes before the study."""
    preconditions: bool = False
    """Of a pilot: run only what its preconditions read, often one arm of many."""
    search: bool = False
    """Give every arm the same small search, on seeds that no verdict uses. Afterwards there is a study NAME-tuned beside NAME."""
    model: str | None = None
    """Train this model instead: a Hugging Face folder, hub name or base-model recipe. The result stays beside the cells."""
    scale: str | None = None
    """Other sizes that the study declares, for example gpu: those of its paper. The result stays beside the cells."""
    seeds: int | None = option(None, at_least=1, at_most=MOST_SEEDS)
    """The look to go up to (8, 12, 16 or 24, none skipped); by default on until everything is decided. Of a pilot: how many seeds."""
    arms: tuple[str, ...] = ()
    """Some arms only; claims that need others are not judged."""
    jobs: int | None = option(None, at_least=0, at_most=MOST_JOBS)
    """Processes; by default one per core."""
    cells: Path | None = None
    """Where finished cells are kept (default: runs/studies/NAME, or below $RHEOSTAT_RUNS)."""
    output: Path | None = None
    """Folder of the result and its picture (default: studies/results for the study as declared, else beside the cells)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Do it."""
        if self.list:
            self.show_list()
            return
        from rheostat.experiments.studies import results

        if self.restamp:
            self.carry_over()
            return
        if self.search:
            self.search_for()
            return
        if not self.name and not self.smoke:
            raise RheostatError(f"Say which study to run: {', '.join(results.study_names())}.")
        from rheostat.experiments.studies.scales import adapted
        from rheostat.reporting.study_figures import draw_into

        other = self.model is not None or self.scale is not None
        if other and not self.name:
            raise RheostatError("--model and --scale go with the name of a study.")
        for slug in [self.name] if self.name else results.study_names():
            study = adapted(results.load_study(slug), scale=self.scale, model=self.model, smoke=self.smoke)
            words = ["rheostat", "study", slug, *(["--smoke"] if self.smoke else []), *(["--pilot"] if self.pilot else [])]
            beside = results.cells_folder(study.slug) if self.cells is None else self.cells
            words += ["--preconditions"] if self.preconditions else []
            words += [] if self.scale is None else ["--scale", self.scale]
            words += [] if self.model is None else ["--model", self.model]
            words += [] if self.seeds is None else ["--seeds", str(self.seeds)]
            words += ["--arms", *self.arms] if self.arms else []
            try:
                done = results.run_study(
                    study,
                    smoke=self.smoke,
                    pilot=self.pilot,
                    preconditions=self.preconditions,
                    seeds=self.seeds,
                    arms=self.arms,
                    jobs=self.jobs,
                    cells=self.cells if self.name else None if self.cells is None else self.cells / slug,
                    output=self.output or (beside if other else None),
                    command=shlex.join(words),
                    draw=draw_into,
                )
            except KeyboardInterrupt:
                print(f"Stopped; finished cells are kept. Continue with: {shlex.join(words)}", file=sys.stderr)
                sys.exit(130)
            if self.json:
                print_json(done.result)
                continue
            show(done)

    def search_for(self) -> None:
        """Run the search of a study and print what it found.

        Raises:
            RheostatError: no name; an option beside it that it would ignore; a study that declares no search.
        """
        from rheostat.experiments.studies import results, tuning

        if not self.name or self != StudyCommand(
            self.name, search=True, jobs=self.jobs, cells=self.cells, output=self.output, json=self.json
        ):
            raise RheostatError(
                "--search goes with the name of a study, --jobs, --cells, --output and --json: its seeds and arms are declared."
            )
        words = shlex.join(["rheostat", "study", self.name, "--search"])
        try:
            found, path = results.run_search(
                results.load_study(self.name), jobs=self.jobs, cells=self.cells, output=self.output, command=words
            )
        except KeyboardInterrupt:
            print(f"Stopped; finished cells are kept. Continue with: {words}", file=sys.stderr)
            sys.exit(130)
        if self.json:
            print_json(found)
            return
        columns = ["task", "arm", *(f"{value:g}" for value in sorted(found["values"])), "chosen"]
        print_table(f"{found['option']}: mean final performance of {len(found['seeds'])} seeds", columns, tuning.rows_of(found))
        print(f"{found['provenance']['cpu_hours']} CPU hours. Stored in {path}.")
        print(f"Next: rheostat study {self.name}{tuning.SUFFIX} --pilot")

    def carry_over(self) -> None:
        """Re-stamp results; of one study a refusal is an error, of all of them it is a line.

        Raises:
            RheostatError: another option beside it; a named study without a result, or one that cannot be carried over.
        """
        from rheostat.experiments.studies import restamp, results
        from rheostat.experiments.study_files import studies_folder

        if self != StudyCommand(self.name, restamp=True):
            raise RheostatError("--restamp goes with the name of a study and with nothing else: it runs nothing.")
        root = studies_folder().parent
        for slug in [self.name] if self.name else results.study_names():
            study, path = results.load_study(slug), results.result_path(slug)
            paths = [each for each in (path, results.pilot_path(path.parent, slug)) if each.exists()]
            if not paths and self.name:
                raise RheostatError(f"The study {slug} has no result to carry over: run `rheostat study {slug}`.")
            for each in paths:
                what = slug if each == path else f"{slug}, pilot"
                try:
                    done = restamp.restamp(study, each, root)
                except RheostatError as error:
                    if self.name:
                        raise RheostatError(f"The result of {what} cannot be carried over: {str(error).rstrip('.')}.") from error
                    print(f"{what}: not carried over: {error}")
                    continue
                print(f"{what}: {done or 'of the present code already'}")

    def show_list(self) -> None:
        """Studies, their claims and the standing of their results."""
        from rheostat.analysis.verdict import OUTCOMES
        from rheostat.experiments.study_files import state_of_studies

        # Hashing the code behind every cell takes seconds and changes only with the code, the studies and their results.
        rows: list_of[dict[str, Any]] = remembered(f"studies-{state_of_studies()}", _listed)
        if self.json:
            print_json(rows)
            return
        shown: list_of[Any] = []
        for row in rows:
            outcomes = list(row["verdicts"].values())
            counts = ", ".join(f"{outcomes.count(name)} {name}" for name in OUTCOMES if name in outcomes)
            counts = f"points to {counts}" if row["pilot"] and counts else counts
            shown.append([row["study"], row["system"], row["paper"], row["claims"], row["cells"], row["cpu_hours"], row["result"], counts])
        columns = ["study", "system", "paper", "claims", "cells", "about CPU hours", "result", "verdicts"]
        print_table("Studies", columns, shown, numbers=["claims", "cells", "about CPU hours"])


def _listed() -> list_of[dict[str, Any]]:
    """Every study: its claims, cells and cost, and the standing of its result."""
    from rheostat.experiments.studies import results

    rows: list_of[dict[str, Any]] = []
    for slug in results.study_names():
        study = results.load_study(slug)
        claims = study.claims(study.sizes())
        cells = {cell.key: cell for claim in claims for cell in claim.cells}
        try:
            worth = results.standing(study)
            standing, pilot = str(worth), worth.kind == "pilot"
            verdicts = results.read_result(results.result_path(slug))["verdicts"] if results.result_path(slug).exists() else {}
        except RheostatError as error:
            standing, pilot, verdicts = str(error), False, {}
        hours = sum(cell.cost for cell in cells.values()) / 3600
        rows.append(
            {
                "study": slug,
                "system": study.system,
                "paper": study.paper,
                "claims": len(claims),
                "cells": len(cells),
                "cpu_hours": round(hours, 2),
                "result": standing,
                "pilot": pilot,
                "verdicts": verdicts,
            }
        )
    return rows


def show(done: object) -> None:
    """Print what a study found."""
    from rheostat.analysis.format import found_text
    from rheostat.experiments.studies.results import Finished

    assert isinstance(done, Finished)
    result = done.result
    rows = [
        (claim["title"] if not index else "", condition["rule"], found_text(condition["numbers"]), condition["outcome"])
        for claim in result["claims"]
        for index, condition in enumerate(claim["conditions"])
    ]
    form = "" if result["form"] == "declared" else f", {result['form']} form"
    print_table(f"{result['system']} ({result['paper']}){form}", ["claim", "condition", "found", "verdict"], rows)
    for claim in result["claims"]:
        for one in claim["preconditions"]:
            state = "holds" if one["passed"] else "does not hold"
            print(f"Precondition of {claim['name']!r} {state}: {one['measures']} {one['bounds']}, measured {one['measured']:.4g}.")
    said = "This is a pilot and decides nothing. It points to: " if result["pilot"] else "Verdicts: "
    print(said + "; ".join(f"{name} {outcome}" for name, outcome in result["verdicts"].items()))
    if done.left_out:
        print(f"Computed but not judged, because they need arms that were left out: {', '.join(done.left_out)}.")
    print(f"Result: {done.path}   Report: rheostat report {result['study'] if result['form'] == 'declared' else done.path}")


@dataclass
class Claims:
    """Print the table of claims, or write it into README.md and docs/claims.md."""

    write: bool = False
    """Write the tables."""
    check: bool = False
    """Fail when the written tables are not what the results say."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Do it."""
        from rheostat.experiments.studies import claims

        if self.check:
            stale = claims.stale()
            if stale:
                names = ", ".join(path.name for path in stale)
                print(f"Error: the claims in {names} are not what studies/results says: run `rheostat claims --write`.", file=sys.stderr)
                sys.exit(1)
            print("The written claims are those of studies/results.")
            return
        if self.write:
            changed = claims.write()
            print("Written: " + ", ".join(map(str, changed)) if changed else "Everything was up to date.")
            return
        found = claims.rows()
        if self.json:
            print_json([row.to_json() for row in found])
            return
        cells = [
            (
                row.slug,
                row.title,
                row.seeds,
                claims.effect_of(row),
                claims.margins_of(row),
                _plain(row),
                "; ".join(row.conditions),
                row.date,
                f"{row.commit}, carried over to {row.carried_to} ({row.golden})" if row.carried_to else row.commit,
            )
            for row in found
        ]
        print_table(
            "Claims", ["study", "claim", "seeds", "effect", "margin", "verdict", "conditions", "date", "commit"], cells, numbers=["seeds"]
        )


def _plain(row: Row) -> str:
    """The verdict without markup."""
    return f"pilot ({row.verdict})" if row.pilot else row.verdict
