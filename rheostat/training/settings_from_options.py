"""From options of the command line or of Python to a run's settings and directory."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.files import runs_folder
from rheostat.methods import table
from rheostat.training.settings import CUSTOM, DEFAULTS, Settings, applies_to, configure, default_of, plain

SETTINGS = {field.name for field in dataclasses.fields(Settings)} - {"method", "task", "config"}
FILE_TASK = "prompts"
"""The task's name of runs on the user's own prompts or preferences."""


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


def settings_for(method: str, task: Any, *, preset: str | None = None, below: Mapping[str, Any] | None = None, **options: Any) -> Settings:
    """Settings from keyword arguments: those of :class:`~rheostat.training.settings.Settings`, the rest go to the method.

    Settings that are not given have the default of the method's domain (:data:`~rheostat.training.settings.DEFAULTS`).

    Args:
        method: its name.
        task: a name or an object.
        preset: a named configuration of the method; None chooses one for the tiny base models, unless there is a file.
        below: options of a configuration file, which the others override; None where there is no file.
        **options: settings of the run, and options of the method by any of their names.

    Raises:
        RheostatError: unknown method, task, preset or setting, or values that cannot work together.
    """
    domain = table.entry(method).domain
    options = absolute(options)
    if options.get("preferences"):
        if (options.get("prompts") or options["preferences"]) != options["preferences"]:
            raise RheostatError("A file of preferences holds the prompts too: leave --prompts out.")
        options["prompts"] = options["preferences"]
    _refuse_settings_of_others(method, domain, options)
    if domain == "language" and options.get("from_run"):
        from rheostat.training.starting_point import with_its_model

        options = with_its_model(options)
    if preset is None and below is None and domain == "language":
        from rheostat.training.language_setup import automatic_preset

        own = task is None or not isinstance(task, str) or options.get("prompts")
        preset = automatic_preset(method, None if own else task, options.get("model"))
        if preset is not None:
            _say_once(f"{method} on a tiny base model: using its preset {preset!r} (rheostat show {method}).")
    general = DEFAULTS[domain] | {name: value for name, value in options.items() if name in SETTINGS}
    config = configure(method, {name: value for name, value in options.items() if name not in SETTINGS}, preset=preset, below=below)
    return Settings(method=method, task=task_name(task), config=plain(config), **general)


def _refuse_settings_of_others(method: str, domain: str, options: dict[str, Any]) -> None:
    """Refuse settings of the other domain's runs that are not their defaults."""
    defaults = {item.name: default_of(item) for item in dataclasses.fields(Settings)}
    for name, value in options.items():
        if name in SETTINGS and not applies_to(name, domain) and value != defaults[name]:
            raise RheostatError(f"{name} is not for {domain} methods, of which {method} is one: leave it out.")


def task_of_prompts(method: str, options: dict[str, Any]) -> str:
    """The task's name of a run with prompts of its own and no task; without any, those of its expert rows are put into ``options``.

    Raises:
        RheostatError: there are no prompts either.
    """
    if not options.get("prompts") and options.get("experts") and table.entry(method).domain == "language":
        options["prompts"] = options["experts"]  # whose rows hold the prompts too
    if options.get("prompts") is not None or options.get("preferences") is not None:
        return FILE_TASK
    examples = {"control": "CartPole-v1", "language": "chain-sum, or a file with --prompts", "compression": "digits, shapes or FILE.npz"}
    own = {"fleet": "city", "answers": "bandit-away", "several_agents": "rheostat.tasks.control.games:Coordination"}
    method_class = table.entry(method).load()
    example = next((name for kind, name in own.items() if getattr(method_class, kind, False)), examples[table.entry(method).domain])
    raise RheostatError(f"Say what to train {method} on, for example {example}; `rheostat list` shows the tasks.")


@cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr)


def absolute(options: dict[str, Any]) -> dict[str, Any]:
    """Files named relative to the working directory, by their whole path, so that a run can be resumed from anywhere."""
    found = dict(options)
    for name in ("model", "prompts", "preferences", "reference", "experts", "offline", "from_run", "teacher"):
        if options.get(name) is not None and Path(options[name]).exists():
            found[name] = str(Path(options[name]).resolve())
    place, colon, name = str(options.get("teacher") or "").rpartition(":")
    if colon and Path(place).is_file():
        found["teacher"] = f"{Path(place).resolve()}:{name}"
    if options.get("rewards"):
        found["rewards"] = tuple(map(absolute_reward, options["rewards"]))
    if options.get("judge"):
        found["judge"] = absolute_reward(options["judge"])
    return found


def absolute_reward(reward: Any) -> str:
    """The name of a reward with the whole path of its file, or of the run that it is."""
    file, colon, name = str(reward).rpartition(":")
    if file == "run":
        return f"run:{Path(name).resolve()}"
    return f"{Path(file).resolve()}:{name}" if file and Path(file).exists() else f"{file}{colon}{name}"
