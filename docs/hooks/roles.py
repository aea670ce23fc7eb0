"""The library's docstrings as mkdocstrings wants them.

Sphinx roles (``:func:`rheostat.api.train` ``) become links where their target is on this site and code where it is not; double backticks
become single ones; an entry ``a, b: text`` of the arguments becomes one for each; shapes such as ``[P][n]`` are no links.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([\w.]+)`")
_SEVERAL = re.compile(r"(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*)")


class Roles(griffe.Extension):
    """Rewrites every docstring before it is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every object that griffe has found."""
        if obj.docstring is None or obj.is_alias:
            return
        text = _ROLE.sub(lambda role: link(obj, role[1]), obj.docstring.value)
        obj.docstring.value = one_entry_each(text.replace("``", "`").replace("][", r"]\["))


def link(obj: griffe.Object, target: str) -> str:
    """A reference that may stay unresolved."""
    path = target if target.startswith("rheostat.") else f"{obj.module.path}.{target}"
    return f'<autoref identifier="{path}" optional><code>{target.rpartition(".")[2]}</code></autoref>'


def one_entry_each(text: str) -> str:
    """``a, b: text`` within the arguments as two entries with the same text."""
    lines = text.split("\n")
    if "Args:" not in (line.strip() for line in lines):
        return text
    found: list[str] = []
    number, inside = 0, False
    while number < len(lines):
        line = lines[number]
        number += 1
        inside = line.strip() == "Args:" or (inside and (line.startswith(" ") or not line.strip()))
        several = _SEVERAL.fullmatch(line) if inside else None
        if several is None:
            found.append(line)
            continue
        rest = []
        while number < len(lines) and lines[number].startswith(several["indent"] + " "):
            rest.append(lines[number])
            number += 1
        for name in several["names"].split(", "):
            found += [f"{several['indent']}{name}: {several['text']}", *rest]
    return "\n".join(found)
