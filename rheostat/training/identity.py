"""The identity of a run: its settings, the sources of its rewards, its environment and a method of the user's own, its base model, its
library versions, and who makes its gradient steps.

Every checkpoint holds it. A run is resumed only with the same identity, or with differences that were accepted, which the run then
records. Data sets, prompts and expert rows are compared by their rows, where they are read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from rheostat.errors import shown
from rheostat.files import sha256
from rheostat.learner.compute import Compute, by
from rheostat.methods import table
from rheostat.options import flatten
from rheostat.training.settings import Settings

COMPUTES = {
    "control": ("torch", "numpy", "gymnasium", "envpool", "mujoco"),
    "language": ("torch", "numpy", "transformers"),
    "compression": ("torch", "numpy", "scikit-learn"),
}
"""Packages whose every version may give other numbers."""

Identity = dict[str, Any]
"""``settings``, ``sources`` (digests by what they are of), ``versions`` and, for control, ``compute``, as JSON."""


def identity_of(settings: Settings, versions: dict[str, str], method: Any = None, task: Any = None) -> Identity:
    """The identity of a run as it is now.

    Args:
        settings: what defines it.
        versions: of Python and the libraries.
        method: the running method; None leaves out its base model, and who makes its gradient steps.
        task: the object that was passed as its task, if any.
    """
    sources = dict(_sources(settings, method, task))
    compute: Compute | None = getattr(method, "compute", None)
    computed = {} if compute is None else {"compute": {"by": by(compute.fast), "because": compute.why_plain}}
    return {"settings": settings.to_json(), "sources": sources, "versions": _environment(settings) | versions} | computed


def _sources(settings: Settings, method: Any, task: Any) -> Iterator[tuple[str, str]]:
    if not table.of_the_library(settings.method) and (place := _file_of(table.entry(settings.method).path.partition(":")[0])) is not None:
        yield f"the method of {place.name}", digest_of(place)
    for reward in (*settings.rewards, *([] if settings.judge is None else [settings.judge])):
        if str(reward).startswith("run:"):
            from rheostat.collect.language.learned_reward import model_folder

            yield f"the reward model {reward}", digest_of(model_folder(str(reward)))
            continue
        place = _file_of(str(reward).rpartition(":")[0] or str(reward))
        if place is not None:
            yield f"the reward function of {place.name}", digest_of(place)
    for function in getattr(task, "rewards", None) or ():
        if inspect.isfunction(function) and function.__name__ != "<lambda>":
            yield f"the reward function {function.__name__}", hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    module, colon, _ = settings.task.partition(":")
    if colon and table.entry(settings.method).domain == "control" and (place := _file_of(module)) is not None:
        yield f"the environment of {place.name}", digest_of(place)
    if settings.reference is not None and Path(settings.reference).is_dir():
        yield f"the reference model {Path(settings.reference).name}", digest_of(Path(settings.reference))
    if table.entry(settings.method).domain == "compression":
        yield from _network_and_images(settings, method)
    folder = _base(settings, method)
    if folder is not None:
        yield f"the base model {folder.name}", digest_of(folder)


def _network_and_images(settings: Settings, method: Any) -> Iterator[tuple[str, str]]:
    """What a run compresses, and on what: the weights that it has read, and the images."""
    place = _file_of(settings.teacher.rpartition(":")[0])
    if place is not None:
        yield f"the network of {place.name}", digest_of(place)
    if method is not None:
        search = method.context.search
        yield "the network to compress", search.teacher_digest
        yield f"the set of images {search.images.name}", search.images.digest


def _base(settings: Settings, method: Any) -> Path | None:
    """The folder of a language run's base model; None where it is an object or a name of a hub."""
    from rheostat.tasks.language.base_models import base_model_path, base_models

    name = settings.model or getattr(getattr(getattr(getattr(method, "context", None), "setup", None), "task", None), "base", None)
    if name is None or table.entry(settings.method).domain != "language":
        return None
    folder = base_model_path(name) if name in base_models() else Path(name)
    return folder if folder.is_dir() else None


def _file_of(name: str) -> Path | None:
    """The file of a Python file or module by name; None where there is none."""
    if name.endswith(".py"):
        path = Path(name).expanduser()
        return path if path.is_file() else None
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(found.origin) if found is not None and found.origin and Path(found.origin).is_file() else None


def digest_of(place: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files in a folder."""
    total = hashlib.sha256()
    for path in sorted(each for each in place.iterdir() if each.is_file()) if place.is_dir() else [place]:
        total.update(f"{path.name if place.is_dir() else ''}\n".encode())
        total.update(bytes.fromhex(sha256(path)))
    return total.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that compute the numbers, by name."""
    found = {"python": platform.python_version()}
    for package in ("rheostat", "torch", "tensordict", "numpy", "gymnasium", "envpool", "mujoco", "transformers", "scikit-learn"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _environment(settings: Settings) -> dict[str, str]:
    """The version of the package that an environment comes from, where it is known by name."""
    if table.entry(settings.method).domain != "control":
        return {}
    import gymnasium

    spec = gymnasium.registry.get(settings.task)
    package = str(getattr(spec, "entry_point", "") or settings.task).partition(":")[0].partition(".")[0]
    try:
        return {package: metadata.version(package)}
    except (metadata.PackageNotFoundError, ValueError):
        return {}


def changed_settings(before: Identity, now: Settings) -> list[str]:
    """Settings that have changed, one sentence each."""
    was, given = (dict(flatten(each)) for each in (before["settings"], now.to_json()))
    keys = [key for key in {**was, **given} if was.get(key) != given.get(key)]
    return [f"The setting {key} is {shown(given.get(key))} now, and was {shown(was.get(key))} when the run began." for key in keys]


def changed_sources(before: Identity, now: Identity, method: str) -> tuple[list[str], list[str]]:
    """Sources and versions that have changed: those that a run accepts only on request, and those that are only reported."""
    grave: list[str] = []
    slight: list[str] = []
    for name in sorted(before["sources"].keys() | now["sources"].keys()):
        if before["sources"].get(name) != now["sources"].get(name):
            what = "has changed since the run began" if name in now["sources"] else "is gone since the run began"
            grave.append(f"{_upper(name)} {what}.")
    made, makes = ({"by": by(False), "because": ""} | each.get("compute", {}) for each in (before, now))
    if made["by"] != makes["by"]:
        why = f" ({makes['because']})" if makes["because"] else ""
        grave.append(f"{_upper(makes['by'])} makes the gradient steps now{why}, and {made['by']} did when the run began.")
    was, has = before["versions"], now["versions"]
    environment = set(_environment(Settings(**now["settings"])))
    for package in sorted(was.keys() | has.keys()):
        if was.get(package) == has.get(package):
            continue
        sentence = f"The version of {package} is {has.get(package, 'none')} now, and was {was.get(package, 'none')} when the run began."
        strict = {*COMPUTES[table.entry(method).domain], *environment} - {"rheostat"}
        minor = package == "rheostat" and _minor(was.get(package)) != _minor(has.get(package))
        (grave if package in strict or minor else slight).append(sentence)
    return grave, slight


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _minor(version: str | None) -> list[str]:
    return (version or "").split(".")[:2]


def _names_rows(name: str, value: Any) -> bool:
    return name == "digest" or (name == "data" and isinstance(value, str))


def without_digests(state: Any) -> Any:
    """A saved cursor without the identity of its rows, so that it continues in other rows."""
    if isinstance(state, dict):
        return {name: without_digests(value) for name, value in state.items() if not _names_rows(name, value)}
    return [without_digests(value) for value in state] if isinstance(state, list) else state
