"""What installed packages add by entry points: methods, tasks and rewards. A name that the library has itself is never taken over.

| group | the object |
|---|---|
| ``rheostat.methods`` | an :class:`rheostat.methods.table.Entry`: the row of the method |
| ``rheostat.tasks`` | a function or class that makes a Gymnasium environment, or the dataclass of a language task |
| ``rheostat.rewards`` | a reward function, as ``FILE.py:NAME`` would name it |
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rheostat.errors import RheostatError, shown_error


@cache
def added(group: str) -> dict[str, EntryPoint]:
    """Entry points of ``rheostat.GROUP`` by name; nothing is imported. Of two packages that add one name, the first in order counts."""
    found: dict[str, EntryPoint] = {}
    for each in sorted(entry_points(group=f"rheostat.{group}"), key=lambda each: (each.name, each.value)):
        found.setdefault(each.name, each)
    return found


def load(group: str, name: str) -> Any:
    """The object of an entry point.

    Raises:
        RheostatError: importing it fails; names the package.
    """
    each = added(group)[name]
    package = each.dist.name if each.dist is not None else each.module
    try:
        return each.load()
    except Exception as error:
        raise RheostatError(
            f"The package {package} adds {name} to rheostat.{group}, but {each.value} cannot be loaded "
            f"({type(error).__name__}: {shown_error(error)}): repair or uninstall that package."
        ) from error
