"""The same methods on several tasks: one comparison per task, and the house's statistics over all of them.

    compare-.../tasks.json          which tasks
                Hopper-v5/          an ordinary comparison (see :mod:`rheostat.experiments.comparison`)
                Walker2d-v5/
                profiles.png, report.html

Returns of different tasks have different scales, so scores are put between the least and the largest final value that any run of any
method has on a task before anything is averaged. The *verdict* rests on one number per matched seed: the mean over tasks of the difference
between two methods. Interquartile mean, probability of improvement and performance profiles follow Agarwal et al. 2021 (arXiv 2108.13264),
with tasks as strata.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.analysis.shares import Profile, performance_profile, probability_of_improvement
from rheostat.analysis.statistics import Interval, interval_of, iqm
from rheostat.analysis.summaries import leading
from rheostat.analysis.verdict import RULE, Verdict, judge
from rheostat.errors import RheostatError
from rheostat.experiments.comparison import Comparison, check_jobs, compare, named_or_file, plan, read_manifest
from rheostat.experiments.grid import Display
from rheostat.experiments.manifests import read_fields, write_fields
from rheostat.training.settings_from_options import free_directory
from rheostat.training.trust import remember

MANIFEST = "tasks.json"
THRESHOLDS = np.linspace(0.0, 1.0, 101)
"""At which performance profiles are taken."""


@dataclass(frozen=True)
class OverTasks:
    """What one method reached over all tasks."""

    label: str
    seeds: int
    """Matched seeds that have finished on every task; the leading ones."""
    score: Interval | None
    """Interquartile mean of the scores, 0 to 1, over tasks and seeds."""
    probability: Interval | None
    """That a run of this method beats one of the first, averaged over tasks; None for the first."""
    verdict: Verdict | None
    by_task: dict[str, Interval | None]
    """Final values, in the task's own unit."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON (unbounded ends of an interval are null)."""

        def plain(interval: Interval | None) -> dict[str, float | None] | None:
            if interval is None:
                return None
            ends = {"low": interval.low, "high": interval.high}
            return {"estimate": interval.estimate} | {name: end if np.isfinite(end) else None for name, end in ends.items()}

        row: dict[str, Any] = {"method": self.label, "seeds": self.seeds, "score": plain(self.score)}
        row |= {"probability_of_improvement": plain(self.probability)}
        row |= {"verdict": None if self.verdict is None else self.verdict.outcome}
        return row | {"tasks": {task: plain(interval) for task, interval in self.by_task.items()}}


@dataclass(frozen=True)
class SeveralTasks:
    """Comparisons of the same methods on several tasks.

    Attributes:
        directory: where they are kept.
        comparisons: by task, in order.
    """

    directory: Path
    comparisons: dict[str, Comparison]

    @property
    def tasks(self) -> list[str]:
        """Their names."""
        return list(self.comparisons)

    @property
    def methods(self) -> tuple[str, ...]:
        """Labels; the others are compared with the first."""
        return next(iter(self.comparisons.values())).methods

    @property
    def notes(self) -> list[str]:
        """What a reader must know before believing the table."""
        return [f"{task}: {note}" for task, comparison in self.comparisons.items() for note in comparison.notes]

    @cached_property
    def finals(self) -> dict[str, dict[str, dict[int, float]]]:
        """Final values of finished runs: ``{method: {task: {seed: value}}}``, in the tasks' own units."""
        found: dict[str, dict[str, dict[int, float]]] = {method: {} for method in self.methods}
        for task, comparison in self.comparisons.items():
            by_method = {method: _folders(comparison, method) for method in self.methods}
            for method, names in by_method.items():
                done = [record for record in comparison.records if record.directory.name in names and record.finished and not record.faults]
                found[method][task] = {record.seed: record.final for record in done}
        return found

    @cached_property
    def scores(self) -> dict[str, dict[str, dict[int, float]]]:
        """The same between 0 and 1: the least and the largest final value that any run has on a task."""
        ends = {}
        for task in self.tasks:
            values = [value for method in self.methods for value in self.finals[method][task].values()]
            ends[task] = (min(values, default=0.0), max(values, default=1.0))
        return {
            method: {task: {seed: _between(value, *ends[task]) for seed, value in own.items()} for task, own in tasks.items()}
            for method, tasks in self.finals.items()
        }

    def profile(self, method: str) -> Profile | None:
        """Share of a method's runs whose score is above each of :data:`THRESHOLDS`; None where a task has no finished run."""
        strata = self._strata(method)
        return None if strata is None else performance_profile(strata, THRESHOLDS)

    def _strata(self, method: str) -> dict[str, list[float]] | None:
        found = {task: list(own.values()) for task, own in self.scores[method].items()}
        return found if all(found.values()) else None

    @cached_property
    def rows(self) -> list[OverTasks]:
        """One for each method."""
        first = self.methods[0]
        return [self._row(method, None if method == first else first) for method in self.methods]

    def _row(self, method: str, other: str | None) -> OverTasks:
        mine = self._strata(method)
        by_task = {task: interval_of(list(own.values()), iqm) if own else None for task, own in self.finals[method].items()}
        probability = verdict = None
        means = self._seed_means(method)
        if other is not None:
            theirs = self._strata(other)
            if mine is not None and theirs is not None:
                probability = probability_of_improvement(mine, theirs)
            against = self._seed_means(other)
            if matched := leading(means, against):
                verdict = judge({seed: means[seed] for seed in matched}, {seed: against[seed] for seed in matched})
        return OverTasks(method, len(means), None if mine is None else interval_of(mine, iqm), probability, verdict, by_task)

    def _seed_means(self, method: str) -> dict[int, float]:
        """Mean score over tasks of every seed that has finished on all of them."""
        tasks = list(self.scores[method].values())
        return {seed: float(np.mean([own[seed] for own in tasks])) for seed in sorted(tasks[0]) if all(seed in own for own in tasks)}

    def to_json(self) -> list[dict[str, Any]]:
        """One row per method, as plain JSON."""
        return [row.to_json() for row in self.rows]


def compare_on(
    methods: Sequence[str],
    tasks: Sequence[str],
    *,
    seeds: int = RULE.looks[0],
    steps: int | None = None,
    margin: float | None = None,
    jobs: int | None = None,
    directory: str | Path | None = None,
    progress: bool | Display = True,
    **options: Any,
) -> SeveralTasks:
    """Compare methods on several tasks, one after another.

    Args:
        methods, seeds, steps, jobs, progress: as in :func:`rheostat.experiments.comparison.compare`.
        tasks: names of at least two.
        margin: must be None: tasks have units of their own.
        directory: where it is kept; naming it again continues it, perhaps with more seeds, methods or tasks.
        **options: settings shared by all runs.

    Raises:
        RheostatError: the same task twice, a margin, or as in :func:`rheostat.experiments.comparison.compare`.
        ComparisonInterrupted: a signal came; everything is saved.
    """
    for task in tasks:
        named_or_file(task, options)  # refuses a file beside the tasks
    tasks = [str(task) for task in tasks]
    if len(set(map(_folder_of, tasks))) != len(tasks):
        raise RheostatError(f"A comparison needs different tasks, got {', '.join(tasks)}.")
    if margin is not None:
        raise RheostatError("A margin has the unit of one task: compare on each task alone, or leave the margin out.")
    check_jobs(jobs)
    stem = f"compare-{'-'.join(method.partition(':')[0] for method in methods)}-{len(tasks)}-tasks"
    where = Path(directory) if directory else free_directory(stem)
    before = read_tasks(where)
    if before is None and where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise RheostatError(f"{where} is not empty and holds no comparison on several tasks: choose another directory.")
    if missing := [task for task in before["tasks"] if task not in tasks] if before else []:
        raise RheostatError(f"{where} compares on {', '.join(missing)} too: name it as well, or choose another directory.")
    shared: dict[str, Any] = {"seeds": seeds, "steps": steps} | options
    for task in tasks:  # what cannot be built is refused before anything is made
        plan(methods, task, directory=where / _folder_of(task), write=False, **shared)
    command = _command(methods, tasks, shared, where)
    remember(where, [command])
    try:
        where.mkdir(parents=True, exist_ok=True)
        write_fields(where / MANIFEST, {"tasks": tasks, "command": command})
    except OSError as error:
        raise RheostatError(f"Cannot write to {where}: {error}.") from error
    return SeveralTasks(
        where,
        {
            task: compare(methods, task, jobs=jobs, progress=progress, directory=where / _folder_of(task), **shared)
            for task in tasks
        },
    )  # fmt: skip


def read_tasks(where: Path) -> dict[str, Any] | None:
    """Which tasks a directory compares on, or None if it holds no such comparison.

    Raises:
        RheostatError: the file is damaged.
    """
    return read_fields(where / MANIFEST, {"tasks": list, "command": str})


def _folders(comparison: Comparison, method: str) -> set[str]:
    """Names of the run directories of a method."""
    manifest = read_manifest(comparison.directory) or {}
    runs, methods = list(manifest["cells"]), list(manifest["methods"])
    each = len(runs) // len(methods)
    place = methods.index(method) * each
    return set(runs[place : place + each])


def _between(value: float, low: float, high: float) -> float:
    return 0.5 if high <= low else (value - low) / (high - low)


def _folder_of(task: str) -> str:
    return task.replace("/", "-").replace(":", "-")


def _command(methods: Sequence[str], tasks: Sequence[str], shared: Mapping[str, Any], where: Path) -> str:
    words = ["rheostat", "compare", *methods, "--task", *tasks, "--seeds", str(shared["seeds"]), "--directory", str(where)]
    words += [] if shared["steps"] is None else ["--steps", str(shared["steps"])]
    rest = {name: value for name, value in shared.items() if name not in ("seeds", "steps")}
    if rest:
        words += ["--options", *(word for name, value in rest.items() for word in (name, json.dumps(value)))]
    return shlex.join(words)
