"""One exception for everything a user can put right, and one for a run that was asked to stop.

The first's message is one sentence that says what is wrong, where, and how to fix it; the command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class RheostatError(ValueError):
    """A mistake the user can mend: the message says what, where and how."""


def install_hint(extra: str) -> str:
    """The command that installs an extra: of this checkout where the package runs from one, else of the package."""
    root = Path(__file__).resolve().parents[1]
    return f"pip install -e '{root}[{extra}]'" if (root / "pyproject.toml").exists() else f"pip install 'rheostat[{extra}]'"


class MissingExtra(RheostatError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed: {install_hint(extra)}.")


class Interrupted(Exception):
    """A signal stopped the run after saving it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(f"Stopped and saved. Continue with: rheostat resume {directory}")


NEAR = 0.5
"""Least similarity of a name that is proposed for a wrong one: 1 is equal. A typing error is nearer, another word is not."""


def unknown(kind: str, name: str, known: Iterable[str], *, lists: str = "") -> RheostatError:
    """The error for a name that does not exist, with the nearest names that do; a name in other capitals is the nearest of all.

    Args:
        kind: of thing.
        name: that there is none of.
        known: the right ones.
        lists: the command that lists them; where none is near, it is named and not they.
    """
    known = sorted(known)
    close = [each for each in known if each.casefold() == name.casefold()] or difflib.get_close_matches(name, known, n=3, cutoff=NEAR)
    all_of_them = f"`{lists}` lists them." if lists else f"known: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}."
    hint = f"did you mean {' or '.join(close)}?" if close else all_of_them
    return RheostatError(f"Unknown {kind} {name!r}: {hint}")


def shown(value: Any) -> str:
    """A value of the user's in a message, in one short line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an int of more digits than Python writes, a ``__repr__`` that raises
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def shown_error(error: BaseException) -> str:
    """What an error of somebody else's says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 200 else text[:197] + "...").rstrip(".")
