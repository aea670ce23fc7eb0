"""What installed packages add by entry points, and files of the user's own by name. A name that the library has itself is never taken over.

| group | the object |
|---|---|
| ``rheostat.methods`` | an :class:`rheostat.methods.table.Entry`: the row of the method |
| ``rheostat.tasks`` | a function or class that makes a Gymnasium environment, or the dataclass of a language task |
| ``rheostat.rewards`` | a reward function, as ``FILE.py:NAME`` would name it |
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError, shown_error

FILES = "RHEOSTAT_METHODS"
"""Variable with the Python files that add methods, separated as in ``PATH``; processes of a comparison inherit it."""


def import_files() -> list[Path]:
    """Import the files that add methods, each by its own name with its folder on the import path; those that are imported stay as they are.

    Raises:
        RheostatError: there is no such file, its name is taken by another module, or importing it fails.
    """
    found = [Path(each).resolve() for each in os.environ.get(FILES, "").split(os.pathsep) if each]
    for path in found:
        if path.suffix != ".py" or not path.is_file():
            raise RheostatError(f"There is no Python file {path} to take methods from.")
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        try:
            module = importlib.import_module(path.stem)
        except Exception as error:
            raise RheostatError(f"The file {path} cannot be imported ({type(error).__name__}: {shown_error(error)}): mend it.") from error
        if Path(getattr(module, "__file__", None) or "").resolve() != path:
            raise RheostatError(f"The name of {path} is that of another module: rename the file.")
    return found


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
