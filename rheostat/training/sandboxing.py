"""The sandbox of a run's graders: stored in the run directory, shown in its report, and not weakened when it is resumed.

``sandbox.json`` holds ``level``, the weakest of the run's graders (null where none runs code), and ``graders``: for each its level, what
it opted out of, what the measurement tried and found stopped or working, and why no stronger level was taken.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rheostat.credit.verifiers.sandbox.levels import LEVELS, Standing, rank, standings_of, weakest
from rheostat.errors import RheostatError
from rheostat.json_text import NotJSON
from rheostat.json_text import read as read_json
from rheostat.training.logs import Counted, fault

FILE = "sandbox.json"


def keep_sandbox(directory: Path, method: Any, counted: Counted | None = None) -> None:
    """Write the sandbox of the method's graders; refuse graders with a weaker one than an earlier session stored.

    Args:
        directory: of the run.
        method: the running method.
        counted: what the checkpoint counted of the record; None where there was none.

    Raises:
        RheostatError: the sandbox here is weaker than the one the run began with, or the record of that was removed or edited.
    """
    standings = _standings(method)
    level = weakest(standings)
    if level is None:
        return
    if counted is not None and (wrong := fault(directory / FILE, counted)) is not None:
        raise RheostatError(
            f"{directory / FILE} {wrong}, so whether the sandbox here is weaker than the run's cannot be told: put it back as it was, or "
            "start a new run."
        )
    if (less := weaker_here(directory, method)) is not None:
        raise RheostatError(f"{less}: resume it where that works, or start a new run with --sandbox {level}.")
    if read_sandbox(directory) is not None:
        return
    content = {"level": level, "graders": [standing.to_json() for standing in standings]}
    (directory / FILE).write_text(json.dumps(content, indent=2) + "\n")


def weaker_here(directory: Path, method: Any) -> str | None:
    """A message where the method's graders have a weaker sandbox than the run began with, and why; else None."""
    before, standings = read_sandbox(directory), _standings(method)
    level = weakest(standings)
    if level is None or before is None or before.get("level") not in LEVELS or rank(level) >= rank(before["level"]):
        return None
    weak = next(standing for standing in standings if standing.level == level)
    why = "; ".join(f"{stronger}: {text}" for stronger, text in weak.refused.items()) or f"the setting gives {level}"
    return f"{directory} was trained with its graders in a sandbox of level {before['level']}, and here they have {level} ({why})"


def _standings(method: Any) -> list[Standing]:
    return standings_of(getattr(getattr(getattr(method, "context", None), "setup", None), "verifier", None))


def read_sandbox(directory: Path) -> dict[str, Any] | None:
    """The record of a run; None where it has none.

    Raises:
        RheostatError: the file is damaged.
    """
    path = directory / FILE
    try:
        found: dict[str, Any] = read_json(path)
        _ = [Standing.from_json(grader) for grader in found.get("graders", [])]
    except FileNotFoundError:
        return None
    except (OSError, NotJSON, TypeError, ValueError, AttributeError) as error:
        raise RheostatError(f"{path} is damaged: {error}.") from error
    return found


def sandbox_line(directory: Path) -> str | None:
    """The record in one line, for a report, or that it is damaged."""
    try:
        found = read_sandbox(directory)
    except RheostatError as error:
        return f"not known: {error}"
    if found is None:
        return None
    return "; ".join(Standing.from_json(grader).sentence() for grader in found.get("graders", [])) or str(found.get("level"))
