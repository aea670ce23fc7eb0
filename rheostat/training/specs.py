"""A method with options of its own, as written on the command line: ``grpo:clip_high=0.28,kl.coefficient=0``."""

from __future__ import annotations

import re
from typing import Any

from rheostat.errors import RheostatError
from rheostat.terminal import json_or_text

NEXT = re.compile(r",(?=[\w.-]+=)")
"""Before the next option: values may hold commas, too."""


def read_spec(text: str) -> tuple[str, dict[str, Any]]:
    """The method's name, and its options by name.

    Raises:
        RheostatError: an option without a name or a value, or one that is given twice.
    """
    method, colon, rest = text.partition(":")
    found: dict[str, Any] = {}
    for part in NEXT.split(rest) if colon else []:
        name, equals, value = part.partition("=")
        if not (name and equals):
            raise RheostatError(f"{text} has an option without a name or a value, {part!r}: write {method}:NAME=VALUE,NAME=VALUE.")
        if name in found:
            raise RheostatError(f"{text} gives {name} twice: leave one out.")
        found[name] = json_or_text(value)
    return method, found
