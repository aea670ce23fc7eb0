"""Options of version 0.1: where they are now, so that its runs and settings are read, or refused with the new name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from rheostat.errors import RheostatError
from rheostat.options import Option, resolve

KINDS: dict[str, tuple[str, dict[Any, Any]]] = {
    "limit": ("clip.kind", {}),
    "kl_in_reward": ("kl.kind", {True: "reward", False: "loss"}),
    "dynamic_sampling": ("dynamic.kind", {True: "on", False: "none"}),
}
"""Old names that are another option now, and their values there where those changed too."""


@cache
def defaults() -> dict[str, dict[str, Any]]:
    """``{method: {option: default}}`` of version 0.1."""
    text = (resources.files("rheostat.training") / "version_0_1.json").read_text(encoding="utf-8")
    return json.loads(text)


def is_old(method: str, config: Mapping[str, Any]) -> bool:
    """Whether a run's configuration was written by version 0.1: every option on one level."""
    known = defaults().get(method)
    return known is not None and set(config) == set(known)


def refuse_old_names(method: str, names: Mapping[str, Any], options: list[Option]) -> None:
    """Refuse names of version 0.1 that a user still types, with the new one.

    Raises:
        RheostatError: naming the option's new name.
    """
    paths = {each.path for each in options}
    for name in names:
        plain = name.replace("-", "_")
        if plain in KINDS and plain not in {each.short for each in options}:
            path, values = KINDS[plain]
            if path in paths:
                what = values.get(names[name], names[name])
                raise RheostatError(f"{method}: the option {plain} of version 0.1 is now {path}: say {path} {what}.")
            raise RheostatError(f"{method} has no option {plain} any more: nothing in this method depends on it.")


def translated(method: str, config: Mapping[str, Any], options: list[Option]) -> dict[str, Any]:
    """A configuration of version 0.1 in today's options; what did nothing is left out.

    Args:
        method: its name.
        config: every option on one level, the dial's nested.
        options: of the method now.

    Raises:
        RheostatError: an option that acted and has no counterpart.
    """
    found: dict[str, Any] = {}
    before = defaults()[method]
    paths = {each.path for each in options}
    kinds = {name: KINDS[name] for name in KINDS if name in config and KINDS[name][0] in paths}
    for name, (path, values) in kinds.items():
        found[path] = values.get(config[name], config[name])
    for name, value in config.items():
        if name in kinds:
            continue
        if name == "dial":
            found |= {f"dial.{inner}": each for inner, each in value.items() if each != before["dial"][inner]}
            continue
        if value == before[name] and not (kinds and name in ("clip_low", "clip_high", "kl_coefficient")):
            continue  # the method's own default, then and now
        try:
            found[resolve(name, options, method)] = value
        except RheostatError as error:
            raise RheostatError(f"This run of version 0.1 set {name} to {value!r}, which {method} no longer has: {error}") from error
    return found
