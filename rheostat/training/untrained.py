"""Language models that no run has trained, as runs: to evaluate a baseline, and the change by training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.training.run import Run
from rheostat.training.settings_from_options import settings_for, task_of_prompts

GRADING = (
    "reward_weights", "reward_timeout", "reward_calls", "reward_text", "reward_needs", "long", "device", "dtype", "engine", "sandbox",
)  # fmt: skip
SAMPLING = ("temperature", "top_k", "top_p", "max_new_tokens")
"""What must be equal where two models are compared."""


def baseline(
    model: str, task: str | None, prompts: Path | None, rewards: tuple[str, ...], environment: dict[str, Any], **options: Any
) -> Run:
    """A run that has not trained and is stored nowhere, to evaluate its model.

    Args:
        model: a Hugging Face folder (also of adapters), a hub name or a base-model recipe.
        task: a language task, or None with ``prompts``.
        prompts: a file of prompts.
        rewards: as for training.
        environment: options of the task.
        options: other settings of the run and of sampling.

    Raises:
        RheostatError: neither task nor prompts, or what a run refuses.
    """
    given: dict[str, Any] = {"model": model, "prompts": None if prompts is None else str(prompts), "rewards": rewards}
    given |= {"environment_options": environment, "kl_coefficient": 0.0} | options
    settings = settings_for("grpo", task or task_of_prompts("grpo", given), preset=None, **given)
    return Run(Path(model), settings)


def opened(before: str | Path, after: str | Path, task: str | None = None) -> tuple[Run, Run]:
    """Two language models as runs, on the same task.

    Args:
        before: a run's directory, or what :func:`baseline` takes as a model.
        after: another.
        task: of models that no run has trained, where neither is a run.

    Raises:
        RheostatError: neither a run nor a task, both, or a run of control.
    """
    runs = {index: Run.load(Path(each)) for index, each in enumerate((before, after)) if is_run(Path(each))}
    for run in runs.values():
        if table.entry(run.settings.method).domain != "language":
            raise RheostatError(f"{run.directory} trained a control policy: language models are compared here.")
    if runs and task is not None:
        raise RheostatError("A run is measured on its own task: leave --task out.")
    if not runs and task is None:
        raise RheostatError("Neither is the directory of a run, so say on which --task both models are measured.")
    first, second = (runs.get(index) or _beside(each, next(iter(runs.values()), None), task) for index, each in enumerate((before, after)))
    return first, second


def is_run(path: Path) -> bool:
    """Whether a folder is a run's: folders of models have a config.json, too."""
    return (path / "config.json").is_file() and (path / "checkpoints").is_dir()


def _beside(model: str | Path, run: Run | None, task: str | None) -> Run:
    """A model on the task of a run, sampled and graded as that run samples and grades; or on a named task."""
    if run is None:
        return baseline(str(model), task, None, (), {})
    known, sampling = run.settings, run.method.context.sampling
    prompts = None if known.prompts is None else Path(known.prompts)
    options = {name: getattr(known, name) for name in GRADING} | {name: getattr(sampling, name) for name in SAMPLING}
    named = known.task if prompts is None else None
    return baseline(str(model), named, prompts, tuple(known.rewards), dict(known.environment_options), **options)
