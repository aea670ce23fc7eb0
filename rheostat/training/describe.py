"""What a method says about itself: its options with their documentation, and what differs from the method its family is told apart from."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

from rheostat.methods import table
from rheostat.options import Option, options_of, short_names
from rheostat.training.settings import shown_options


@dataclass(frozen=True)
class Setting:
    """One option of a method."""

    name: str
    """Its path."""
    short: str
    """The name that is enough; the path where there is none."""
    kind: str
    default: Any
    documentation: str
    parent_default: Any
    """The parent method's default; equal to ``default`` where nothing changed or the option is new."""
    new: bool
    """Whether the parent does not have it."""


def settings_of(name: str) -> list[Setting]:
    """Every option that acts in a method, in order."""
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


def _type_name(hint: Any) -> str:
    """A type as people write it."""
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("torch.", "")
