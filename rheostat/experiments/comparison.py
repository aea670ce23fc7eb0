"""Train several methods on one task over several seeds at equal budget, in parallel, and report which is better.

    compare-.../compare.json        the compared methods and settings
                ppo-s0/, ppo-s1/    ordinary run directories, one per method and seed
                logs/               the output of the workers
                results.json, curves.png, report.html

Naming the directory again continues it: finished runs are kept, interrupted ones resumed, failed ones tried again; seeds and methods may be
added, but no existing run may be redefined or left out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rheostat.analysis.records import Arm, Record, group_arms, read_record
from rheostat.analysis.summaries import ArmSummary, summarise
from rheostat.analysis.verdict import RULE
from rheostat.errors import RheostatError, shown, shown_error
from rheostat.experiments import MOST_JOBS, MOST_SEEDS
from rheostat.experiments.display import GridBar, Quiet
from rheostat.experiments.grid import Display, Grid, GridRun
from rheostat.experiments.manifests import read_fields, write_fields
from rheostat.files import write_atomically
from rheostat.json_text import dumps
from rheostat.locks import held
from rheostat.methods import table
from rheostat.options import Domain, flatten, whole
from rheostat.training.identity import versions
from rheostat.training.run import Interrupted, Run
from rheostat.training.run_directory import LOCK
from rheostat.training.settings import Settings, merged, usual_steps
from rheostat.training.settings_from_options import FILE_TASK, SETTINGS, free_directory, settings_for
from rheostat.training.specs import read_spec
from rheostat.training.trust import remember, require_begun

MANIFEST = "compare.json"
RUN_MANY = ("compare", "sweep", "tune")
"""Commands that a directory of several runs is continued by."""
SIDE_BY_SIDE: dict[str, Any] = {"threads": 1}
"""Settings of runs that share the cores, unless others are given."""


class ComparisonInterrupted(Interrupted):
    """A signal stopped the comparison after every run saved itself."""

    def __init__(self, directory: Path, command: str) -> None:
        super().__init__(directory)
        self.args = (f"Stopped and saved. Continue with: {command}",)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        directory: of the comparison.
        methods: names; the first is the one the others are compared with.
        task: name.
        records: the runs that exist, by method and seed.
        failures: runs that crashed, with their errors.
        margin: the difference of final values below which nothing matters, as declared before the first run; None: none was.
    """

    directory: Path
    methods: tuple[str, ...]
    task: str
    records: tuple[Record, ...]
    failures: dict[str, str] = field(default_factory=dict)
    margin: float | None = None

    @cached_property
    def arms(self) -> list[Arm]:
        """Runs by method."""
        return next(iter(group_arms(self.records).values()))

    @cached_property
    def _summary(self) -> tuple[list[ArmSummary], list[str]]:
        return summarise(self.arms, margin=self.margin)

    @property
    def summaries(self) -> list[ArmSummary]:
        """The rows of the table, as objects."""
        return self._summary[0]

    @property
    def notes(self) -> list[str]:
        """Warnings for readers of the table."""
        failed = [f"{name} failed: {error}" for name, error in self.failures.items()]
        return [*failed, *(note for note in missing(self.directory) if not failed), *self._summary[1]]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, as JSON."""
        return [row.to_json() for row in self.summaries]


FILES = ("prompts", "preferences")
"""Settings that name a file which is the task of runs."""


def named_or_file(task: str | None, options: Mapping[str, Any]) -> str:
    """What several runs train on: the task, or where none is named the file of prompts or preferences among the options.

    Raises:
        RheostatError: neither, or both.
    """
    files = [name for name in FILES if options.get(name)]
    if files and task not in (None, "", FILE_TASK):
        raise RheostatError(f"{files[0]} names a file to train on, and the task {task} another world: leave one of them out.")
    if not files and not task:
        raise RheostatError(
            "Say what to train on: a task, for example CartPole-v1 or chain-sum, or a file with --prompts or --preferences."
        )
    return FILE_TASK if files else str(task)


def file_words(options: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The words of a command line that name the file that runs train on, and the other options."""
    words = [word for name in FILES if options.get(name) for word in (f"--{name}", str(Path(options[name]).resolve()))]
    return words, {name: value for name, value in options.items() if name not in FILES}


def compare(
    methods: Sequence[str],
    task: str | None = None,
    *,
    seeds: int = RULE.looks[0],
    steps: int | None = None,
    margin: float | None = None,
    jobs: int | None = None,
    directory: str | Path | None = None,
    progress: bool | Display = True,
    **options: Any,
) -> Comparison:
    """Train every method with seeds 0 ... ``seeds - 1`` and the same budget, then compare.

    Args:
        methods: names, each perhaps with options of its own (``grpo:group_size=8``); the others are compared with the first.
        task: by name; None where ``prompts`` or ``preferences`` among the options name a file, which is the task then.
        seeds: runs per method; fewer than 8 are a pilot, and verdicts are given after 8, 12, 16 and 24.
        steps: budget of every run, in the method's unit; None takes that of a single run, see ``rheostat train``.
        margin: difference of final values below which nothing matters; can be given only before the first run.
        jobs: runs at a time; None takes one per core.
        directory: of the comparison; None picks a free name; one that holds an unfinished comparison of the same settings continues it.
        progress: show a live display.
        **options: settings of the run and of the methods, shared by all arms. Runs have one thread each unless ``threads`` is given,
            because they run side by side.

    Raises:
        RheostatError: an unknown method, task or setting, an option for all that only some of the methods have, a directory that holds
            something else, or every run failed.
        ComparisonInterrupted: a signal came; everything is saved.
    """
    check_jobs(jobs)
    if task is None or isinstance(task, str):
        task = named_or_file(task, options)
    runs, where, command = plan(methods, task, seeds=seeds, steps=steps, margin=margin, directory=directory, **options)
    failures = run_grid(runs, where, command, str(task), jobs=jobs, progress=progress)
    comparison = load_comparison(where, failures=failures)
    write_atomically(where / "results.json", dumps(comparison.rows(), indent=2))
    return comparison


def check_jobs(jobs: int | None) -> None:
    """Refuse numbers of workers that make no sense, before anything is made.

    Raises:
        RheostatError: naming it and what it must be.
    """
    if jobs is not None:
        whole("jobs", jobs, at_least=1, at_most=MOST_JOBS)


def run_grid(runs: list[GridRun], where: Path, command: str, title: str, *, jobs: int | None, progress: bool | Display) -> dict[str, str]:
    """Run all runs that are not finished.

    Returns:
        Errors of the runs that crashed, by name.

    Raises:
        ComparisonInterrupted: a signal came; everything is saved.
        RheostatError: every run failed, or another process runs them.
    """
    workers = jobs or len(os.sched_getaffinity(0))
    display = (GridBar(title) if progress else Quiet()) if isinstance(progress, bool) else progress
    with held(where / LOCK, f"the runs in {where}", say=display.note):
        whole = Grid(runs, workers, where / "logs", command, display).run()
    if not whole:
        raise ComparisonInterrupted(where, command)
    failures = {run.name: run.error for run in runs if run.state == "failed"}
    if len(failures) == len(runs):
        raise RheostatError(f"Every run failed, the first one ({runs[0].name}) with: {runs[0].error}")
    return failures


def plan(
    methods: Sequence[str],
    task: str,
    *,
    seeds: int,
    steps: int | None,
    directory: str | Path | None,
    margin: float | None = None,
    write: bool = True,
    **options: Any,
) -> tuple[list[GridRun], Path, str]:
    """The runs of a comparison, its directory (made, with its manifest, unless ``write`` is off) and the command that runs or continues it.

    Raises:
        RheostatError: see :func:`compare`.
    """
    arms = {label: read_spec(label) for label in methods}
    if not methods or len({_folder(label) for label in methods}) != len(methods):
        raise RheostatError(f"A comparison needs different methods, got {', '.join(methods) or 'none'}.")
    if not isinstance(task, str):
        raise RheostatError("A comparison runs in several processes and needs the name of a task, not an environment object.")
    refuse_objects(options, "A comparison")
    steps = usual_steps(name for name, _ in arms.values()) if steps is None else steps
    where = Path(directory) if directory else free_directory(f"compare-{'-'.join(map(_folder, methods))}-{task}")
    command = _command(methods, task, seeds, steps, margin, where, options)
    runs = plan_arms(arms, task, seeds=seeds, steps=steps, margin=margin, where=where, command=command, write=write, **options)
    return runs, where, command


def plan_arms(
    arms: dict[str, tuple[str, dict[str, Any]]],
    task: str,
    *,
    seeds: int,
    steps: int,
    where: Path,
    command: str,
    margin: float | None = None,
    write: bool = True,
    **options: Any,
) -> list[GridRun]:
    """The runs of a grid of arms and seeds; its directory is made, with a manifest that refuses anything else later.

    Args:
        arms: method and own options by label; the first is what the others are compared with.
        task: by name.
        seeds, steps: of every arm.
        where: the directory.
        command: that runs or continues it.
        margin: see :func:`compare`.
        write: make the directory and its manifest; off, everything is checked and nothing is written.
        **options: shared by all arms.

    Raises:
        RheostatError: see :func:`compare`.
    """
    whole("seeds", seeds, at_least=1, at_most=MOST_SEEDS)
    if margin is not None and not Domain(above=0).holds(margin):
        raise RheostatError(f"The margin is {margin:g}: it must be above 0, the difference below which nothing matters.")
    if "seed" in options:
        raise RheostatError("A comparison chooses the seeds 0, 1, ... itself: give how many with seeds, not seed.")
    if "stop_at" in options or any("stop_at" in own for _, own in arms.values()):
        raise RheostatError("Runs that are compared have equal budgets: leave stop_at out.")
    given = _given_to(arms, options)
    of_arm = {label: SIDE_BY_SIDE | _read_by(method, given[label]) for label, (method, _) in arms.items()}
    planned = {
        label: [settings_for(method, task, seed=seed, steps=steps, **of_arm[label]) for seed in range(seeds)]
        for label, (method, _) in arms.items()
    }
    runs = [
        GridRun(f"{_folder(label)}-s{settings.seed}", label, where / f"{_folder(label)}-s{settings.seed}", settings)
        for label, mine in planned.items()
        for settings in mine
    ]
    manifest = {
        "task": task,
        "methods": list(arms),
        "seeds": seeds,
        "margin": margin,
        "settings": {label: _shared(mine[0]) for label, mine in planned.items()},
        "cells": [run.name for run in runs],
        "command": command,
        "versions": versions(),
    }
    _refuse_other(where, manifest)
    if read_manifest(where) is None:  # refuse impossible methods now, rather than in every worker
        for mine in planned.values():
            first = Run(where, mine[0])
            _ = first.method
            first.close()
    if not write:
        return runs
    remember(where, [command])
    try:
        where.mkdir(parents=True, exist_ok=True)
        write_fields(where / MANIFEST, manifest)
    except OSError as error:
        raise RheostatError(f"Cannot write to {where}: {error}.") from error
    return runs


def _folder(label: str) -> str:
    """The label of an arm in names of folders."""
    return re.sub(r"[^\w.-]+", "-", label)


def _given_to(arms: Mapping[str, tuple[str, dict[str, Any]]], shared: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of every arm: the settings of the run, those shared by all methods, and its own.

    Raises:
        RheostatError: an option that is shared although only some of the methods have it.
    """
    general = {name: value for name, value in shared.items() if name in SETTINGS or name == "preset"}
    options = {name: value for name, value in shared.items() if name not in general}
    found: dict[str, dict[str, Any]] = {}
    lacking: dict[str, dict[str, Any]] = {}
    for label, (method, own) in arms.items():
        runs_own = {name: value for name, value in own.items() if name in SETTINGS}
        given = merged(method, table.entry(method).load()(), options, {name: own[name] for name in own if name not in runs_own})
        found[label] = general | runs_own | given.values | given.unknown | given.lacking
        lacking[label] = given.lacking
    for label, missing in lacking.items():
        for name, value in missing.items():
            having = next((arms[other][0] for other in arms if name not in lacking[other]), None)
            if having is not None:
                raise RheostatError(
                    f"{label} has no option {name}, and {having} has: give it to the methods that have it, as "
                    f"{having}:{name}={value if isinstance(value, str) else json.dumps(value)}."
                )
    return found


def load_comparison(directory: str | Path, *, failures: dict[str, str] | None = None) -> Comparison:
    """Open a comparison, finished or not.

    Raises:
        RheostatError: there is none, it has no run yet, or a file is damaged.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    if manifest is None:
        raise RheostatError(f"There is no comparison in {directory}: it has no {MANIFEST}.")
    begun = [directory / name for name in manifest["cells"] if (directory / name / "config.json").exists()]
    if not begun:
        raise RheostatError(f"No run of the comparison in {directory} has begun yet.")
    records = tuple(read_record(path) for path in begun)
    return Comparison(directory, tuple(manifest["methods"]), str(manifest["task"]), records, failures or {}, manifest.get("margin"))


def missing(directory: Path) -> list[str]:
    """A sentence on missing runs of a comparison, or on its manifest where that is damaged and cannot tell; empty where none is missing, or
    the directory holds no comparison."""
    try:
        manifest = read_manifest(directory)
    except RheostatError as error:
        return [f"Whether a run is missing, and which margin was declared, cannot be told: {error}"]
    gone = [name for name in (manifest or {}).get("cells", []) if not (directory / name / "config.json").is_file()]
    return [f"{directory} has no run {', '.join(gone)}, which the comparison names: it is not counted."] if gone else []


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a comparison, or None if the directory holds none."""
    path = directory / MANIFEST
    manifest = read_fields(path, {"task": str, "methods": list, "cells": list, "settings": dict, "seeds": int})
    if manifest is None:
        return None
    outside = [name for name in manifest["cells"] if not isinstance(name, str) or Path(name).name != name or name in (".", "..")]
    if outside or manifest["seeds"] < 1:
        raise RheostatError(f"{path} is damaged: its {'cells' if outside else 'seeds'} make no sense.")
    return manifest


def command_of(directory: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The words after ``rheostat`` that began a comparison, sweep or search, and that continue it.

    Args:
        directory: of it.
        manifest: what it says of itself, with its ``command``.

    Raises:
        RheostatError: another command, or one that nobody has vouched for (:mod:`rheostat.training.trust`).
    """
    command = str(manifest.get("command", ""))
    try:
        words = shlex.split(command)[1:]
    except ValueError as error:
        raise RheostatError(f"The command that {directory} names is damaged: {shown_error(error)}.") from error
    if not words or words[0] not in RUN_MANY:
        raise RheostatError(f"{directory} names the command {shown(command)}, which is none of {', '.join(RUN_MANY)}.")
    require_begun(directory, [f"the command {shown(command)}"], [command])
    return words


def _shared(settings: Settings) -> dict[str, Any]:
    """Settings without the seed, as read back from JSON."""
    return {key: value for key, value in settings.to_json().items() if key != "seed"}


def _refuse_other(where: Path, manifest: dict[str, Any]) -> None:
    """A directory may be empty, or hold the same comparison, or a part of it."""
    if not where.exists():
        return
    if not where.is_dir():
        raise RheostatError(f"{where} is a file: choose a directory for the comparison.")
    held = read_manifest(where)
    if held is None:
        if any(where.iterdir()):
            raise RheostatError(f"{where} is not empty and holds no comparison: choose another directory.")
        return
    if held["task"] != manifest["task"]:
        raise RheostatError(f"{where} compares on {held['task']}, not {manifest['task']}: choose another directory.")
    missing = [method for method in held["methods"] if method not in manifest["methods"]]
    if missing:
        raise RheostatError(f"{where} compares {', '.join(missing)} too: name it as well, or choose another directory.")
    if manifest["margin"] is None:
        manifest["margin"] = held.get("margin")
    if held.get("margin") != manifest["margin"]:
        raise RheostatError(
            f"{where} was begun {'without a margin' if held.get('margin') is None else 'with the margin {:g}'.format(held['margin'])}, and "
            f"{manifest['margin']:g} is given now: a margin is declared before the first run, so leave it, or choose another directory."
        )
    if held["seeds"] > manifest["seeds"]:
        raise RheostatError(
            f"{where} holds {held['seeds']} seeds per method and {manifest['seeds']} were asked for: "
            "leaving results out would be choosing among them."
        )
    for method in held["methods"]:
        before, now = _flat(held["settings"][method]), _flat(manifest["settings"][method])
        differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if differing:
            key = differing[0]
            raise RheostatError(
                f"{where} was made with {key} {before.get(key)!r} for {method}, not {now.get(key)!r}: choose another directory, "
                "or the results of different settings would be mixed."
            )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "config"} | dict(flatten(settings["config"]))


EXPERT_SETTINGS = ("experts", "expert_missing", "expert_long", "expert_least_reward")


def _read_by(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """Without the file of expert rows where a language method reads none, so that it can be compared with those that do."""
    from rheostat.training.language_setup import uses_experts

    row = table.entry(method)
    asked = dict(flatten(options)).get("dial.expert_share")
    if row.domain != "language" or uses_experts(method) or asked or options.get("expert_missing") == "skip":
        return options
    return {name: value for name, value in options.items() if name not in EXPERT_SETTINGS}


def refuse_objects(options: dict[str, Any], who: str) -> None:
    """Refuse options that other processes could not read.

    Raises:
        RheostatError: one that is an object.
    """
    for name, value in options.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise RheostatError(
                f"{name} is an object ({type(value).__name__}): {who[:1].lower()}{who[1:]} runs in several processes and needs a name, "
                "such as that of a file."
            ) from error


def _command(methods: Sequence[str], task: str, seeds: int, steps: int, margin: float | None, where: Path, options: dict[str, Any]) -> str:
    named, options = file_words(options)
    words = ["rheostat", "compare", *methods, *(named or ["--task", task])]
    words += ["--seeds", str(seeds), "--steps", str(steps), "--directory", str(where)]
    words += [] if margin is None else ["--margin", f"{margin:g}"]
    if options:
        words.append("--options")
        for key, value in options.items():
            words += [key, value if isinstance(value, str) and not _reads_as_json(value) else json.dumps(value)]
    return shlex.join(words)


def _reads_as_json(text: str) -> bool:
    """Whether the command line would parse a text as another type, such as a number."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
