"""Samples of a language method, kept for inspection: a compressed file per update, thinned out as they become many.

The first line of a file says its format, which update it is of, how many rows follow, and the SHA-256 of their text.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from rheostat.json_text import NotJSON, loads

FILES = 200
"""Most files that are kept."""
FORMAT = 1
"""Files of earlier versions have no first line of their own."""
MOST_BYTES = 256 * 2**20
"""That the text of a file may have."""


def path_of(directory: Path, iteration: int) -> Path:
    """Where the rollouts of a turn lie."""
    return directory / "rollouts" / f"update-{iteration:07d}.jsonl.gz"


def keep_rollouts(directory: Path, iteration: int, rows: list[dict[str, Any]]) -> None:
    """Store the samples of an iteration.

    Args:
        directory: of the run.
        iteration: its number.
        rows: of completions, as JSON; none leave no file.

    Raises:
        OSError: the directory cannot be written.
    """
    if not rows:
        return
    path = path_of(directory, iteration)
    path.parent.mkdir(exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = "".join(lines).encode("utf-8", "replace")  # half a surrogate pair of a foreign text becomes a question mark
    head = {"format": FORMAT, "update": iteration, "rows": len(rows), "sha256": hashlib.sha256(text).hexdigest()}
    path.write_bytes(gzip.compress(json.dumps(head).encode() + b"\n" + text, mtime=0))
    files = sorted(path.parent.glob("update-*.jsonl.gz"))
    if len(files) > FILES:  # keep the first, the last and every second one in between
        for old in files[1:-1:2]:
            old.unlink()


def read_kept(path: Path, iteration: int) -> list[dict[str, Any]]:
    """The rows of a file, which must be of this update.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read or unpacked.
        ValueError: it is not what was written, as the end of a sentence.
    """
    with gzip.open(path) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise NotJSON(f"it has more than {MOST_BYTES:,} bytes")
    first, _, rest = data.partition(b"\n")
    head = loads(first)
    if isinstance(head, dict) and "format" in head:
        if head["format"] != FORMAT:
            raise NotJSON(f"it has the format {head['format']!r:.40}, which this version of Rheostat does not read")
        if head.get("update") != iteration or head.get("sha256") != hashlib.sha256(rest).hexdigest():
            raise NotJSON("it is not what the run wrote")
        data = rest
    rows = [loads(line) for line in data.splitlines()]
    if not all(isinstance(row, dict) for row in rows):
        raise NotJSON("it holds rows that are no JSON objects")
    return rows
