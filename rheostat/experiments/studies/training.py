"""The usual arm of a study: a method of the table, trained on a task as ``rheostat train`` would, over some seeds."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.analysis.metrics import AXES
from rheostat.analysis.records import Array, Record, read_record
from rheostat.errors import RheostatError, unknown
from rheostat.experiments.studies.declaration import Precondition
from rheostat.experiments.studies.jobs import Cell
from rheostat.experiments.studies.study import Columns, Results
from rheostat.experiments.studies.tuning import PUBLISHED, Tuned
from rheostat.methods import table
from rheostat.training import checkpoint, version_0_1
from rheostat.training.progress import Silent
from rheostat.training.run import Run
from rheostat.training.settings import Settings, configure, plain, shared_by

POINTS = 60
"""Points kept of a curve."""
BATCH = {"prompts_per_batch": "prompts", "group_size": "group_size", "learning_rate": "learning_rate"}
"""Settings of methods, by the field of a study's sizes that they are."""
DATA = "data-set"
"""Folder in which a cell leaves the data set that others learn from."""
METRICS = (
    "episode_return",
    "accuracy",
    "reward",
    "entropy",
    "completion_length",
    "meter/ess",
    "meter/kl_behaviour_k3",
    "meter/clip_fraction",
)
"""Curves kept of every run that has them."""


@dataclass(frozen=True)
class Arm:
    """One arm: a method with its options."""

    method: str
    config: dict[str, Any] = field(default_factory=dict)
    """Differences from the method's own defaults, in addition to the options that all arms share."""


def trained(
    arms: Mapping[str, Arm],
    *,
    task: str,
    steps: int,
    seeds: int,
    shared: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    metrics: tuple[str, ...] = METRICS,
    cost: float | Mapping[str, float] = 60.0,
    first_seed: int = 0,
    data: Mapping[int, Cell] | None = None,
    look: str | None = None,
    tuned: Tuned = PUBLISHED,
) -> dict[str, dict[int, Cell]]:
    """Cells by arm and seed, for :class:`~rheostat.experiments.studies.study.Claim`.

    Args:
        arms: by label.
        task: by name, the same in all arms.
        steps: budget of every run, in the method's unit.
        seeds: how many.
        shared: settings of the methods, equal in all arms that have them (tuning included).
        settings: settings of the runs (``model``, ``threads``, ``evaluation_episodes``, ...), equal in all arms.
        metrics: curves to keep.
        cost: expected seconds of one cell, for the display; by arm if they differ much.
        first_seed: seeds are numbered from here.
        data: by seed, a cell that leaves a data set as :data:`DATA` in its folder, which all arms of the seed learn from.
        look: ``module:name`` of a function of the finished run, whose plain JSON is kept as ``look``.
        tuned: what a search found for each arm (``sizes.tuned``); by default nothing.

    Raises:
        RheostatError: an unknown method or setting, or an arm with an option that makes budgets unequal.
    """
    found: dict[str, dict[int, Cell]] = {}
    given = shared_by([(arm.method, arm.config | tuned.of(task, label)) for label, arm in arms.items()], shared or {})
    for (label, arm), config in zip(arms.items(), given, strict=True):
        for name in ("steps", "seed", "task"):
            if name in arm.config:
                raise RheostatError(f"The arm {label!r} sets {name}, which is the same in all arms.")
        configure(arm.method, config)  # refuse now what cannot run
        arguments = {
            "method": arm.method,
            "config": config,
            "task": task,
            "steps": steps,
            "settings": dict(settings or {}),
            "metrics": list(metrics),
        }
        each = cost if isinstance(cost, int | float) else cost[label]
        source = table.entry(arm.method).path.split(":")[0]
        found[label] = {}
        for seed in range(first_seed, first_seed + seeds):
            needs = () if data is None else (data[seed],)
            mine = (
                arguments | {"seed": seed} | ({} if data is None else {"data": data[seed].key}) | ({} if look is None else {"look": look})
            )
            sources = (*_sources(source, task), *([] if look is None else [look.split(":")[0]]))
            found[label][seed] = Cell(f"{__name__}:train", mine, f"{label}, seed {seed}", each, needs, sources)
    return found


def sized(sizes: Any, steps: int, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`trained` takes from the sizes of a study of language models.

    Args:
        sizes: with the fields ``seeds``, ``first_seed``, ``model`` and ``held_out`` (prompts of the final evaluation); and ``prompts`` and
            ``group_size`` of a batch, ``learning_rate``, ``device``, ``dtype`` and ``tuned`` where the study has them.
        steps: the budget of every run, which is saved at its end only.
        shared: settings of the methods that do not depend on the sizes.

    Returns:
        The arguments, by name.
    """
    batch = {name: getattr(sizes, field) for name, field in BATCH.items() if hasattr(sizes, field)}
    where = {name: getattr(sizes, name) for name in ("device", "dtype") if hasattr(sizes, name)}
    settings = {"model": sizes.model, "evaluation_episodes": sizes.held_out, "checkpoint_every": steps} | where
    found = {"steps": steps, "seeds": sizes.seeds, "first_seed": sizes.first_seed, "shared": {**shared, **batch}, "settings": settings}
    return found | ({"tuned": sizes.tuned} if hasattr(sizes, "tuned") else {})


def _sources(method: str, task: str) -> tuple[str, ...]:
    """Modules that a run finds by name."""
    registration = "rheostat.tasks.control.registration" if task.startswith("rheostat/") else None
    return tuple(filter(None, (method, registration)))


def train(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: one run, resumed where an interrupted one was; its directory is removed at the end.

    If the process was killed while it removed the directory, the run starts over.

    Returns:
        ``final`` (of ``final_metric``), ``summary`` (the final evaluation) and ``curve`` (:data:`Columns`).
    """
    directory = place / "run"
    if (directory / "config.json").is_file() and checkpoint.names(directory / "checkpoints"):
        run = Run.load(directory, to_continue=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)
        config = configure(arguments["method"], arguments["config"])
        general = {"rollouts_kept": 0} | arguments["settings"]
        if "data" in arguments:
            general |= {"offline": str(place.parent / arguments["data"] / DATA)}
        settings = Settings(arguments["method"], arguments["task"], arguments["seed"], arguments["steps"], config=plain(config), **general)
        run = Run.create(directory, settings)
    if not run.finished:
        run.train(progress=Silent())
    looked = {}
    if "look" in arguments:
        module, name = arguments["look"].split(":")
        looked = {"look": getattr(importlib.import_module(module), name)(run)}
    run.close()
    record = read_record(directory)
    result = {
        "final": record.final,
        "final_metric": record.final_metric,
        "summary": record.summary,
        "curve": columns(record, tuple(arguments["metrics"])),
    } | looked
    shutil.rmtree(directory)
    return result


def columns(record: Record, metrics: tuple[str, ...], points: int = POINTS) -> Columns:
    """Budgets and metrics of a run on at most ``points`` rows: means over equal stretches of rows for metrics, the end of each for budgets.

    Raises:
        RheostatError: the run has none of the metrics.
    """
    present = [metric for metric in metrics if version_0_1.current_metric(metric) in record.columns and len(record.curve(metric)[0])]
    if not present:
        raise unknown("metric", metrics[0] if metrics else "", record.metrics)
    count = len(record.columns["steps"])
    ends = np.unique(np.linspace(0, count - 1, min(points, count)).round().astype(int))
    found: dict[str, Array] = {}
    for axis in AXES:
        column = record.axis(axis.key)
        if column is not None:
            found[axis.key] = column[ends]
    for metric in present:
        rows, values = record.curve(metric)
        starts = np.concatenate([[-1], ends[:-1]])
        means = [values[(rows > low) & (rows <= high)] for low, high in zip(starts, ends, strict=True)]
        known = np.array([part.mean() if len(part) else np.nan for part in means])
        if np.isnan(known).all():
            continue
        where = np.flatnonzero(np.isfinite(known))
        found[metric] = np.interp(np.arange(len(known)), where, known[where])
    return {name: [float(f"{value:.6g}") for value in column] for name, column in found.items()}


def finals(cells: Mapping[int, Cell], result: Results) -> dict[int, float]:
    """The final performance of every seed of an arm."""
    return {seed: float(result(cell)["final"]) for seed, cell in cells.items()}


def average(cells: Mapping[int, Cell], result: Results, metric: str) -> dict[int, float]:
    """Mean of a metric over training, by seed."""
    return {seed: float(np.mean(result(cell)["curve"][metric])) for seed, cell in cells.items()}


def reaches(arm: str, arms: Mapping[str, Mapping[int, Cell]], *, least: float | None = None, most: float | None = None) -> Precondition:
    """A precondition: an arm's mean final performance in the pilot lies within bounds, so that there is something to gain or to lose."""
    return Precondition(f"{arm} in range", f"final performance of {arm}", lambda result: finals(arms[arm], result), least, most)


def curves(arms: Mapping[str, Mapping[int, Cell]], result: Results) -> dict[str, dict[int, Columns]]:
    """The curves of trained arms, for :class:`~rheostat.experiments.studies.study.Judgement`."""
    return {arm: {seed: result(cell)["curve"] for seed, cell in cells.items()} for arm, cells in arms.items()}


def areas(cells: Mapping[int, Cell], result: Results, metric: str, budget: float) -> dict[int, float]:
    """Mean height of every seed's curve over the budget (area under the curve divided by the budget).

    Raises:
        RheostatError: the metric was not kept.
    """
    from rheostat.analysis.statistics import area_under_curve

    found = {}
    for seed, cell in cells.items():
        curve = result(cell)["curve"]
        if metric not in curve:
            raise unknown("metric", metric, curve)
        found[seed] = area_under_curve(curve["steps"], curve[metric], until=budget)
    return found
