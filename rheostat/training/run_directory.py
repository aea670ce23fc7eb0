"""The directory of a run: whether it is free, and ``config.json``, which holds the settings of the run."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.files import write_atomically
from rheostat.json_text import NotJSON
from rheostat.json_text import read as read_json
from rheostat.training.settings import Settings

LOCK = "lock.json"
"""Name of the lock of a directory, which one process may write at a time."""
CONFIG = "config.json"


def refuse_taken(directory: Path) -> None:
    """Refuse a directory that is not empty; a left-over lock does not count.

    Raises:
        RheostatError: it does.
    """
    if (directory / CONFIG).exists():
        raise RheostatError(
            f"{directory} already holds a run: continue it with `rheostat resume {directory}`, or choose another directory."
        )
    if directory.exists() and (not directory.is_dir() or any(LOCK not in path.name for path in directory.iterdir())):
        raise RheostatError(f"{directory} already exists and is not an empty directory: choose another one.")


def write_description(directory: Path, description: dict[str, Any]) -> None:
    """Write ``config.json``.

    Args:
        directory: of the run.
        description: ``settings``, ``versions``, ``command`` and further facts, as JSON.

    Raises:
        OSError: the directory cannot be written.
    """
    write_atomically(directory / CONFIG, json.dumps(description, indent=2))


def grow(directory: Path, settings: Settings, spent: int) -> None:
    """Store a larger budget, and in ``history`` when it was given.

    Args:
        directory: of the run.
        settings: with the larger budget.
        spent: steps that were trained before, in the method's unit.

    Raises:
        OSError: the directory cannot be written.
    """
    description = read_json(directory / CONFIG)
    was, now = description["settings"], settings.to_json()
    grown = {name: [was.get(name, 0), now[name]] for name in ("steps", "online_steps") if was.get(name, 0) != now[name]}
    history = [*description.get("history", []), {"at": spent} | grown | {"command": command_line()}]
    write_description(directory, description | {"settings": now, "history": history})


def read_description(directory: str | Path) -> dict[str, Any]:
    """The settings of the run in a directory (``settings``, as :class:`Settings`), and the facts about its environment and network.

    Raises:
        RheostatError: there is none, or its configuration is damaged.
    """
    path = Path(directory) / CONFIG
    try:
        description = read_json(path)
        return description | {"settings": Settings(**description["settings"])}
    except FileNotFoundError as error:
        raise RheostatError(f"There is no run in {directory}: it has no config.json.") from error
    except RheostatError:
        raise
    except (OSError, NotJSON, KeyError, TypeError) as error:
        raise RheostatError(f"{path} is damaged: {error}.") from error


def command_line() -> str:
    """The command that started this process, as typed."""
    name = Path(sys.argv[0]).name or "python"
    return shlex.join([name, *sys.argv[1:]])
