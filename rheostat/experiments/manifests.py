"""What a directory of several runs knows of itself: an object of JSON with its own digest, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.files import write_atomically
from rheostat.json_text import NotJSON, dumps, plain, read, signed, unsigned


def read_fields(path: Path, kinds: Mapping[str, type]) -> dict[str, Any] | None:
    """The object in a file, without its digest; None where there is no file. A file of a version that wrote no digest is read as it is.

    Args:
        path: of the file.
        kinds: of the values that it must have, by name.

    Raises:
        RheostatError: it is damaged: no JSON, changed afterwards, or without one of these values.
    """
    if not path.is_file():
        return None
    try:
        found = unsigned(read(path))
    except (OSError, NotJSON) as error:
        raise RheostatError(f"{path} is damaged: {error}.") from error
    for name, kind in kinds.items():
        if name not in found:
            raise RheostatError(f"{path} is damaged: it has no {name!r}.")
        if not isinstance(found[name], kind):
            raise RheostatError(f"{path} is damaged: its {name} make no sense.")
    return found


def write_fields(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object with its digest, in one piece.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, dumps(signed(plain(content)), indent=2))
