"""Whether the code that a run names may be executed.

A run's directory is data, but some of what it names is code: reward functions in files or modules, and environments of a module. Opening
the run loads that code. A run that was begun in the same place by the same user needs no question: the user named the code then. What was
begun is noted outside of the run's directory, in the user's cache, by a digest of the directory and of the code's names; so a directory
that was copied, sent or unpacked, or whose ``config.json`` names other code now, is asked about.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.files import cache_root
from rheostat.methods import table
from rheostat.training.settings import CUSTOM, Settings

OWN = ("rheostat.", "gymnasium", "envpool")
"""What needs no question: this library, and prefixes of tasks that only say who simulates."""
_trusting: ContextVar[bool] = ContextVar("trusting", default=False)


@contextmanager
def trusting(said: bool = True) -> Iterator[None]:
    """Inside, code that runs name may be executed, if the user said so."""
    before = _trusting.set(said or _trusting.get())
    try:
        yield
    finally:
        _trusting.reset(before)


MOST_NOTED = 10_000
"""Beginnings that are noted at most, each an empty file."""


def code_of(settings: Settings, *, with_task: bool = True) -> list[str]:
    """What a run would execute that its settings name, in order and in words.

    Args:
        settings: of the run.
        with_task: whether its task comes from them, too; False where it is handed over as an object.
    """
    return sorted(dict.fromkeys(_code(settings, with_task)))


def _code(settings: Settings, with_task: bool) -> Iterator[str]:
    graders: list[Any] = [*settings.rewards, settings.judge]
    if settings.prompts is not None and not settings.rewards:
        named = settings.environment_options.get("reward")
        graders += named if isinstance(named, list | tuple) else [named]
    for reward in graders:
        if isinstance(reward, str) and (":" in reward or reward.endswith(".py")) and not reward.startswith((*OWN, "run:")):
            yield f"the reward function {reward}"
    if ":" in settings.teacher and not settings.teacher.startswith((CUSTOM, *OWN)):
        yield f"the network {settings.teacher}"
    if (
        with_task
        and ":" in settings.task
        and not settings.task.startswith((CUSTOM, *OWN))
        and table.entry(settings.method).domain == "control"
    ):
        yield f"the environment {settings.task}"


def _note(directory: Path, code: list[str]) -> Path:
    """Where it is noted that what executes this code was begun here."""
    what = json.dumps([os.path.realpath(directory), code])
    return cache_root() / "begun" / hashlib.sha256(what.encode()).hexdigest()


def remember(directory: Path, code: list[str]) -> None:
    """Note that this user began something with this code in this place; where nothing can be noted, opening it asks.

    Args:
        directory: of the run or comparison.
        code: from :func:`code_of`, or a command; none needs no note.
    """
    if code:
        place = _note(directory, code)
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.touch()
            _forget_oldest(place.parent)
        except OSError:
            return


def _forget_oldest(folder: Path) -> None:
    """Keep the newest :data:`MOST_NOTED` notes: what was begun long ago asks again."""
    with os.scandir(folder) as entries:
        notes = [(entry.stat().st_mtime_ns, entry.path) for entry in entries]
    for _, path in sorted(notes)[: max(0, len(notes) - MOST_NOTED)]:
        Path(path).unlink(missing_ok=True)


def require_begun(directory: Path, code: list[str], noted: list[str] | None = None) -> None:
    """Refuse to execute what nobody has vouched for: it was not begun here, and this is not :func:`trusting`.

    Args:
        directory: of the run or comparison.
        code: what would be executed, in words.
        noted: what :func:`remember` was given, where that is more.

    Raises:
        RheostatError: naming the code.
    """
    if code and not _trusting.get() and not _note(directory, noted or code).exists():
        raise RheostatError(
            f"{directory} was not begun in this place by you, and opening it would run {' and '.join(code)}: read that code first, and "
            "open it with --trust (trust=True in Python) where you trust it."
        )


def require_trust(directory: Path, settings: Settings, *, with_task: bool = True) -> None:
    """The same for the code of a run.

    Args:
        directory: of the run.
        settings: what defines it.
        with_task: as in :func:`code_of`.

    Raises:
        RheostatError: naming the code.
    """
    require_begun(directory, code_of(settings, with_task=with_task), code_of(settings))
