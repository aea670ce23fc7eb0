"""Episodes of Minari's columnar formats (Arrow and Parquet), as the named arrays that its HDF5 groups hold.

ID/data/metadata.json          as for HDF5
ID/data/0/*.arrow, 1/..., ...  one table per episode: observations, actions, rewards, terminations, truncations, infos [T + 1]
ID/data/0/metadata.json        total_steps T of the episode; the row after them holds the final observation and padding
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rheostat.errors import MissingExtra, RheostatError, shown_error

if TYPE_CHECKING:
    from gymnasium import Space

FORMATS = {"arrow": "arrow", "parquet": "parquet"}
"""Minari's names of these formats and pyarrow's."""


def count_episodes(folder: Path) -> int:
    """Numbered folders inside a data folder."""
    return sum(path.is_dir() and path.name.isdigit() for path in folder.iterdir())


def read_arrays(folder: Path, number: int, kind: str, spaces: dict[str, Space], where: str) -> dict[str, Any]:
    """One episode: observations with all their rows, everything else with one row per step.

    Args:
        folder: of the data set.
        number: of the episode.
        kind: of :data:`FORMATS`.
        spaces: of the columns ``observations`` and ``actions``.
        where: what error messages call the episode.

    Returns:
        Arrays by column; dicts of them where the space has entries (``_index_0``, ... of a Tuple). Infos are left out: theirs count
        rows and not steps.

    Raises:
        RheostatError: it cannot be read, or its length is missing.
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.dataset
    except ImportError as error:
        raise MissingExtra("pyarrow", "offline", f"Reading data sets that Minari stores as {kind}") from error
    place = folder / str(number)
    if not place.is_dir():
        raise RheostatError(f"{where} is missing: episodes must be numbered from 0 without gaps.")
    try:
        files = sorted(str(path) for path in place.iterdir() if path.suffix == f".{kind}")
        table = pyarrow.dataset.dataset(files, format=FORMATS[kind]).to_table().combine_chunks()
        steps = int(json.loads((place / "metadata.json").read_text())["total_steps"])
    except (OSError, pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RheostatError(f"{where} cannot be read as {kind} ({shown_error(error)}): write the data set again.") from error
    found: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        column = column.chunk(0) if column.num_chunks else column.combine_chunks()
        if name == "observations":
            found[name] = _arrays(column, spaces[name], f"{where}: {name}")
        elif name == "actions":
            found[name] = _arrays(column[:steps], spaces[name], f"{where}: {name}")
        elif name in ("rewards", "terminations", "truncations"):
            found[name] = column[:steps].to_numpy(zero_copy_only=False)
    return found


def _arrays(column: Any, space: Space, where: str) -> Any:
    """A column as arrays, by its space."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        prefix = "" if isinstance(space, spaces.Dict) else "_index_"
        known = {field.name for field in column.type} if hasattr(column, "field") else set()
        pairs = ((key, part) for key, part in inner if str(key) in known)  # an entry that is missing is named where it is needed
        return {f"{prefix}{key}": _arrays(column.field(str(key)), part, f"{where}[{key!r}]") for key, part in pairs}
    if not hasattr(column, "values") or not hasattr(column.type, "list_size"):
        return column.to_numpy(zero_copy_only=False)
    width, shape = column.type.list_size, tuple(space.shape or ())
    if width != math.prod(shape):
        raise RheostatError(f"{where} have {width} numbers each; their space is {space}.")
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), *shape)
