"""Running the stages of a recipe: which are finished, which prompts a stage trains on, and what all of them have cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rheostat.analysis.metrics import FINALS
from rheostat.collect.language.pass_rates import pass_rates
from rheostat.errors import Interrupted, RheostatError
from rheostat.experiments.manifests import read_fields, write_fields
from rheostat.experiments.recipe import START, Recipe, Stage, best_trial, filtered_prompts
from rheostat.files import sha256, write_atomically
from rheostat.json_text import plain
from rheostat.tasks.language.prompt_files import FilePrompts, read_row
from rheostat.tasks.language.reading import named_rows, read_rows
from rheostat.training.logs import METRICS, read_jsonl
from rheostat.training.run import Run
from rheostat.training.settings import Settings

COSTS = ("generated_tokens", "learner_tokens", "reward_calls", "flops")
"""Columns of the log that count from the beginning of a run."""


def stages_left(recipe: Recipe, directory: Path) -> Iterator[Stage]:
    """Stages that are not finished, in order; asked again after each."""
    for stage in recipe.stages:
        if not is_finished(directory / recipe.folder(stage)):
            yield stage


def is_finished(run: Path) -> bool:
    """Whether a stage has spent its budget and stored its summary."""
    return (run / "summary.json").is_file()


def is_begun(run: Path) -> bool:
    """Whether a stage has a checkpoint to go on from."""
    return any((run / "checkpoints").glob("*/manifest.json"))


def run_stage(
    recipe: Recipe, directory: Path, stage: Stage, create: Callable[[Path, Settings], Any], resume: Callable[[Path], Any]
) -> None:
    """Train one stage to its end, from its beginning or from where it stopped.

    Args:
        recipe: of which it is.
        directory: of the recipe.
        stage: that is not finished.
        create: begins the run in a folder and trains it to its end.
        resume: goes on with the run in a folder.

    Raises:
        RheostatError: what its run refuses, naming the stage; nothing that earlier stages have computed is lost.
        Interrupted: a signal stopped it; names the directory of the recipe.
    """
    place = directory / recipe.folder(stage)
    try:
        if is_begun(place):
            resume(place)
            return
        if place.exists():  # it was stopped before its first checkpoint
            shutil.rmtree(place)
        choose_prompts(recipe, directory, stage)
        create(place, recipe.settings_of(stage, directory))
    except Interrupted as stop:
        raise Interrupted(directory) from stop
    except RheostatError as error:
        said = str(error) if str(error).startswith(f"Stage {stage.name}: ") else f"Stage {stage.name}: {error}"
        raise RheostatError(said) from error


def choose_prompts(recipe: Recipe, directory: Path, stage: Stage) -> None:
    """Write the prompts of a stage with a filter, unless they are there.

    The stage's first policy writes ``pass_rate_samples`` completions of every training prompt; prompts whose share of right ones (a reward
    of at least 1) lies in the range are kept. A completion that could not be graded is left out. Validation prompts stay as they are.

    Raises:
        RheostatError: no prompt is kept, or the file is not what was written.
    """
    path = filtered_prompts(directory, recipe, stage)
    if stage.pass_rate is None or filter_facts(path) is not None:
        return
    low, high = stage.pass_rate
    settings = recipe.settings_of(stage)
    before = recipe.before(stage)
    if before is not None:
        settings = Settings(**vars(settings) | {"from_run": str(directory / recipe.folder(before))})
    scratch = path.with_suffix(".measuring")
    shutil.rmtree(scratch, ignore_errors=True)
    run = Run.create(scratch, settings)
    try:
        rates = rates_of(run, stage.pass_rate_samples)
        kept = within(rates, low, high)
        rows = list(_rows_kept(run, settings, rates.keys() - kept))
    finally:
        run.close()
        shutil.rmtree(scratch, ignore_errors=True)
    if not kept:
        found = f"from {min(rates.values()):.2f} to {max(rates.values()):.2f}" if rates else "unknown: no completion could be graded"
        raise RheostatError(
            f"the filter leaves no prompt: pass rates of {len(rates)} prompts lie {found}, and pass_rate is [{low:g}, {high:g}]."
        )
    write_atomically(path, "".join(json.dumps(plain(dict(row)), ensure_ascii=False) + "\n" for row in rows))
    mean = sum(rates.values()) / len(rates)
    facts = {"kept": len(kept), "of": len(rates), "mean": mean, "sha256_of_prompts": sha256(path)}
    write_fields(path.with_suffix(".facts.json"), facts)


def within(rates: Mapping[str, float], low: float, high: float) -> set[str]:
    """Prompts whose pass rate lies in a range, its ends included."""
    return {key for key, rate in rates.items() if low <= rate <= high}


def rates_of(run: Run, samples: int) -> dict[str, float]:
    """Share of right completions of every training prompt of a file, by the prompt's key; prompts that no completion of could be graded are
    left out. The run's own training does not change.

    Args:
        run: of a language method, with prompts from a file.
        samples: completions of each.
    """
    context: Any = run.method.context
    prompts = {prompt.key: prompt for prompt in context.setup.task.block(0, "train", 0)}
    encoded = [(prompts[key], context.setup.encoder.encode(prompts[key])) for key in sorted(prompts)]
    drawn = [(prompt, ids) for prompt, ids in encoded if ids is not None]
    with context.evaluating():
        parts = list(pass_rates(context.collector, drawn, samples, context.sampling, version=context.updates))
    return {key: rate for _, rates in parts for key, rate in rates.items()}


def _rows_kept(run: Run, settings: Settings, dropped: set[str]) -> Iterator[Mapping[str, Any]]:
    """Rows of the file of prompts, without those of the dropped ones."""
    task: Any = run.method.context.setup.task
    assert isinstance(task, FilePrompts) and settings.prompts is not None
    known = settings.environment_options
    columns = (str(known.get("prompt_column", "prompt")), known.get("answer_column"))
    for where, row in named_rows(read_rows(settings.prompts), task.name):
        if read_row(row, where, *columns).key not in dropped:
            yield row


def filter_facts(path: Path) -> dict[str, Any] | None:
    """What a filter kept: ``kept`` prompts ``of`` how many, and their ``mean`` pass rate before; None where it has not been applied.

    Raises:
        RheostatError: the file of prompts is not what was written.
    """
    facts = read_fields(path.with_suffix(".facts.json"), {"kept": int, "of": int, "mean": float, "sha256_of_prompts": str})
    if facts is not None and (not path.is_file() or sha256(path) != facts["sha256_of_prompts"]):
        raise RheostatError(f"{path} is not what the filter wrote: delete it and {path.with_suffix('.facts.json').name}.")
    return facts


def stage_rows(recipe: Recipe, directory: Path) -> list[dict[str, Any]]:
    """What every stage began with, did and cost, in order, as plain JSON; stages that have not begun are left out.

    ``experts_of`` is the earlier stage whose expert rows it learned from; ``steps`` and the costs are those of the stage alone; ``measure``
    is the name of what was measured on the way, with its ``first`` and ``last`` value.
    """
    rows = []
    for stage in recipe.stages:
        place = directory / recipe.folder(stage)
        if not is_begun(place):
            break
        log = read_jsonl(place / METRICS)
        summary = json.loads((place / "summary.json").read_text()) if is_finished(place) else {}
        measure = measure_of(log)
        values = [row[measure] for row in log if measure in row]
        before = recipe.before(stage)
        facts = filter_facts(filtered_prompts(directory, recipe, stage)) if stage.pass_rate is not None else None
        last = log[-1] if log else {}
        rows.append(
            {"stage": stage.name, "method": stage.method, "from": START if before is None else before.name}
            | {"finished": is_finished(place), "steps": last.get("steps", 0), "seconds": summary.get("seconds")}
            | {"measure": measure, "first": values[0] if values else None, "last": values[-1] if values else None}
            | {"prompts": None if facts is None else f"{facts['kept']} of {facts['of']}"}
            | {"experts_of": best_trial(directory, recipe, stage) if stage.experts_of_best else None}
            | {name: last[name] for name in COSTS if name in last}
        )
    return rows


def measure_of(log: list[dict[str, Any]]) -> str | None:
    """The main metric that a log has measured on the way; None where nothing was."""
    return next((name for name in FINALS if any(name in row for row in log)), None)


def totals(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds and costs of all stages together; a cost that a stage does not count is left out."""
    names = [name for name in ("seconds", *COSTS) if all(row.get(name) is not None for row in rows)]
    return {name: sum(row[name] for row in rows) for name in names} if rows else {}
