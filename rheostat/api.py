"""The Python face of the house: the same as the command line, with objects."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.training.progress import Bar, Progress, Silent
from rheostat.training.run import CUSTOM, Run
from rheostat.training.settings import Settings, configure

if TYPE_CHECKING:
    from rheostat.evaluation.disagreement.comparing import Disagreement
    from rheostat.evaluation.microscope.looking import Look

SETTINGS = {field.name for field in dataclasses.fields(Settings)} - {"method", "task", "config"}


def runs_folder() -> Path:
    """Where runs go when no directory is given: ``$RHEOSTAT_RUNS``, else ``runs``."""
    return Path(os.environ.get("RHEOSTAT_RUNS", "runs"))


def free_directory(stem: str) -> Path:
    """``runs/stem``, or ``runs/stem-2``, ... : the first that does not exist."""
    base = runs_folder() / stem.replace("/", "-").replace(":", "-")
    candidate, number = base, 1
    while candidate.exists():
        number += 1
        candidate = base.with_name(f"{base.name}-{number}")
    return candidate


def task_name(task: Any) -> str:
    """The name of a task: itself, or ``custom:`` and the id of an environment object."""
    if isinstance(task, str):
        return task
    spec = getattr(task, "spec", None)
    name = getattr(spec, "id", None) or getattr(task, "__name__", None) or type(task).__name__
    return CUSTOM + str(name)


def settings_for(method: str, task: Any, *, preset: str | None = None, **options: Any) -> Settings:
    """Settings from keyword arguments: those of :class:`~rheostat.training.settings.Settings`, the rest go to the method.

    Raises:
        RheostatError: unknown method, task, preset or setting, or values that cannot work together.
    """
    options = absolute(options)
    if preset is None and table.entry(method).domain == "language":
        from rheostat.training.language import automatic_preset

        own = task is None or not isinstance(task, str) or options.get("prompts")
        preset = automatic_preset(method, None if own else task, options.get("model"))
        if preset is not None:
            _say_once(f"{method} on a tiny base model: using its preset {preset!r} (rheostat show {method}).")
    general = {name: value for name, value in options.items() if name in SETTINGS}
    config = configure(method, {name: value for name, value in options.items() if name not in SETTINGS}, preset=preset)
    return Settings(method=method, task=task_name(task), config=dataclasses.asdict(config), **general)


def task_of_prompts(method: str, options: dict[str, Any]) -> str:
    """What a run is called that has prompts of its own and no task.

    Raises:
        RheostatError: there are no prompts either.
    """
    if options.get("prompts"):
        return "prompts"
    example = "chain-sum, or a file with --prompts" if table.entry(method).domain == "language" else "CartPole-v1"
    raise RheostatError(f"Say what to train {method} on, for example {example}; `rheostat list` shows the tasks.")


@cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr)


def absolute(options: dict[str, Any]) -> dict[str, Any]:
    """Files named relative to the working directory, by their whole path, so that a run can be resumed from anywhere."""
    found = dict(options)
    for name in ("model", "prompts", "experts"):
        if options.get(name) is not None and Path(options[name]).exists():
            found[name] = str(Path(options[name]).resolve())
    if options.get("rewards"):
        parts = [str(reward).rpartition(":") for reward in options["rewards"]]
        found["rewards"] = tuple(
            f"{Path(file).resolve()}:{name}" if file and Path(file).exists() else f"{file}{colon}{name}" for file, colon, name in parts
        )
    return found


def train(
    method: str,
    task: Any = None,
    *,
    directory: str | Path | None = None,
    policy: Any = None,
    preset: str | None = None,
    progress: bool | Progress = True,
    sinks: tuple[str, ...] = (),
    **options: Any,
) -> Run:
    """Train a method on a task.

    Args:
        method: a name from ``rheostat list``.
        task: an EnvPool or Gymnasium id; your own Gymnasium environment, a function that makes one, or a vector environment; or a language
            task. None where ``prompts`` names a file of prompts, which is then the task.
        directory: where the run is kept; None picks a free name under ``runs``.
        policy: your own network: a module with ``distribution(observation)`` and ``value(observation)``.
        preset: a named configuration of the method.
        progress: show a live display.
        sinks: also log to ``tensorboard`` or ``trackio``.
        **options: settings of the run (``seed``, ``steps``, ``threads``, ...) and of the method (``learning_rate``, ...).

    Returns:
        The finished run, with ``metrics``, ``summary``, ``plot()`` and ``policy(observation)``.

    Raises:
        RheostatError: anything you can put right, in one sentence.
    """
    task = task or task_of_prompts(method, options)
    settings = settings_for(method, task, preset=preset, **options)
    where = Path(directory) if directory else free_directory(f"{method}-{settings.task.removeprefix(CUSTOM)}-s{settings.seed}")
    run = Run.create(where, settings, task=None if isinstance(task, str) else task, policy=policy)
    return finish(run, progress, sinks)


def resume(
    directory: str | Path, *, task: Any = None, policy: Any = None, progress: bool | Progress = True, sinks: tuple[str, ...] = ()
) -> Run:
    """Continue an interrupted run to its end, exactly as if it had never stopped.

    Raises:
        RheostatError: nothing to resume there, the run is finished, or no checkpoint is whole.
    """
    run = Run.load(directory, task=task, policy=policy)
    for note in run.notes:
        print(f"{note} Going back to the one before it.", file=sys.stderr)
    return finish(run, progress, sinks)


def finish(run: Run, progress: bool | Progress, sinks: tuple[str, ...]) -> Run:
    """Train to the end of the budget, then draw the curves and write the report."""
    from rheostat.evaluation.report import write_report
    from rheostat.evaluation.rollouts import rollouts_section

    display = (Bar(run.directory.name) if progress else Silent()) if isinstance(progress, bool) else progress
    if progress:
        derived = table.entry(run.settings.method).load().derived(run.method.config)
        arithmetic = ", ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in derived.items())
        print(f"{run.directory}: {arithmetic}", file=sys.stderr)
    run.train(progress=display, sinks=sinks)
    run.plot()
    section = rollouts_section(run.directory)
    write_report([run.directory], run.directory / "report.html", sections=[section] if section else [])
    return run


def load(directory: str | Path, *, task: Any = None, policy: Any = None) -> Run:
    """Open a run, finished or not, at its newest whole checkpoint."""
    return Run.load(directory, task=task, policy=policy)


def compare(methods: list[str], task: str, *, seeds: int = 5, **options: Any) -> Any:
    """Train several methods on one task over several seeds, in parallel; see :func:`rheostat.evaluation.comparison.compare`."""
    from rheostat.evaluation.comparison import compare as run_comparison

    return run_comparison(methods, task, seeds=seeds, **options)


def microscope(names: Sequence[str] = (), **options: Any) -> Look:
    """Estimators of gradients, KL or advantages against exact values; see :func:`rheostat.evaluation.microscope.looking.microscope`."""
    from rheostat.evaluation.microscope.looking import microscope as look

    return look(names, **options)


def disagree(run: str | Path, methods: Sequence[str], **options: Any) -> Disagreement:
    """A run's frozen batch through several methods; see :func:`rheostat.evaluation.disagreement.comparing.disagree`."""
    from rheostat.evaluation.disagreement.comparing import disagree as compare_on

    return compare_on(run, methods, **options)


def sweep(method: str, task: str, **options: Any) -> Any:
    """Train a method at several settings of the dial, over several seeds; see :func:`rheostat.evaluation.sweep.sweep`."""
    from rheostat.evaluation.sweep import sweep as run_sweep

    return run_sweep(method, task, **options)


def study(name: str, **options: Any) -> Any:
    """Run a study; see :func:`rheostat.evaluation.studies.results.run_study`."""
    from rheostat.evaluation.studies.results import load_study, run_study

    return run_study(load_study(name), **options)


def methods() -> dict[str, table.Entry]:
    """The table of methods."""
    return dict(table.METHODS)
