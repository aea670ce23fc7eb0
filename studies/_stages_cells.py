"""Cells of studies of recipes: the stages of one recipe, one after the other, and what each of them came to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rheostat.analysis.records import read_record
from rheostat.experiments.recipe import recipe_of
from rheostat.experiments.recipe_stages import run_stage, stages_left
from rheostat.experiments.studies.training import columns
from rheostat.training.progress import Silent
from rheostat.training.run import Run
from rheostat.training.settings import Settings


def staged(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: the recipe ``recipe`` with the seed ``seed``, resumed where it was interrupted; its directory is removed at the end.

    Returns:
        ``stages``: for every stage ``summary`` (its final evaluation) and ``curve``; ``final`` and ``curve`` are of the last one.
    """
    directory, recipe = place / "recipe", recipe_of(arguments["recipe"] | {"seed": arguments["seed"]})
    directory.mkdir(exist_ok=True)
    for stage in stages_left(recipe, directory):
        run_stage(recipe, directory, stage, begun, resumed)
    records = [read_record(directory / recipe.folder(stage)) for stage in recipe.stages]
    found = [{"summary": record.summary, "curve": columns(record, tuple(arguments["metrics"]))} for record in records]
    last = records[-1]
    shutil.rmtree(directory)
    return {"stages": found, "final": last.final, "final_metric": last.final_metric, "curve": found[-1]["curve"]}


def begun(directory: Path, settings: Settings) -> None:
    """A stage, from its beginning to its end."""
    trained(Run.create(directory, settings))


def resumed(directory: Path) -> None:
    """A stage, from where it stopped to its end."""
    trained(Run.load(directory, to_continue=True))


def trained(run: Run) -> None:
    """Train to the end of the budget."""
    run.train(progress=Silent())
    run.close()
