"""A cell of the N2N study: controllers that learn on a small teacher first, and go on with the large one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rheostat.experiments.studies.training import train
from rheostat.training import checkpoint
from rheostat.training.progress import Silent
from rheostat.training.run import Run
from rheostat.training.settings import Settings, configure, plain

BEFORE = "small"
"""Folder of the run on the small teacher."""


def transferred(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: as :func:`rheostat.experiments.studies.training.train`, after a run on the teacher ``before`` with the same budget."""
    directory = place / BEFORE
    if (directory / "config.json").is_file() and checkpoint.names(directory / "checkpoints"):
        run = Run.load(directory, to_continue=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)
        general = arguments["settings"] | {"teacher": arguments["before"], "evaluation_episodes": 0}
        config = plain(configure("n2n", arguments["config"]))
        run = Run.create(directory, Settings("n2n", arguments["task"], arguments["seed"], arguments["steps"], config=config, **general))
    if not run.finished:
        run.train(progress=Silent())
    run.close()
    found = train(arguments | {"settings": arguments["settings"] | {"from_run": str(directory)}}, place)
    shutil.rmtree(directory)
    return found
