"""The description of a method: its options with their documentation, and their differences from the method it derives from."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

from rheostat.methods import table
from rheostat.options import KIND, Option, kinds_at, options_of, short_names, with_options
from rheostat.training.settings import by_path, shown_options


@dataclass(frozen=True)
class Setting:
    """One option of a method."""

    name: str
    """Its path."""
    short: str
    """The short name, where it is unique; else the path."""
    kind: str
    default: Any
    documentation: str
    parent_default: Any
    """The parent method's default; equal to ``default`` where nothing changed or the option is new."""
    new: bool
    """Whether the parent does not have it."""


def settings_of(name: str) -> list[Setting]:
    """Every option that has an effect in a method, in order."""
    method = table.entry(name)
    cls = method.load()
    found = shown_options(name, cls())
    shorts = {path: short for short, path in short_names(found).items()}
    parent = table.METHODS[method.parent].load()
    before: dict[str, Any] = {}
    known = parent is not cls
    if known:
        theirs = options_of(parent())
        before = {each.path: each.value for each in theirs}
        before |= {short: before[path] for short, path in short_names(theirs).items()}

    def in_parent(each: Option) -> str:
        """What the option is called in the parent: its unique short name, or its path."""
        return shorts[each.path] if shorts.get(each.path) in before else each.path

    return [
        Setting(
            each.path,
            shorts.get(each.path, each.path),
            _type_name(each.hint),
            each.value,
            each.documentation,
            before.get(in_parent(each), each.value),
            known and in_parent(each) not in before,
        )
        for each in found
    ]


def other_kinds(name: str) -> dict[str, list[Option]]:
    """``{"clip.kind searched": its options}`` of the kinds of parts that are not a method's default."""
    config = table.entry(name).load()()
    found = {}
    for each in shown_options(name, config):
        if each.path.endswith("." + KIND):
            for kind in kinds_at(config, each.path):
                options = options_of(with_options(config, {each.path: kind}, name))
                part = each.path.removesuffix(KIND)
                mine = [other for other in options if other.path.startswith(part) and other.path != each.path]
                if kind != each.value and mine:
                    found[f"{each.path} {kind}"] = mine
    return found


def presets_of(name: str) -> dict[str, dict[str, Any]]:
    """The presets of a method, their options by path."""
    cls = table.entry(name).load()
    return {preset: by_path(name, cls(), values) for preset, values in getattr(cls, "presets", {}).items()}


def _type_name(hint: Any) -> str:
    """A type as people write it."""
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("torch.", "")
