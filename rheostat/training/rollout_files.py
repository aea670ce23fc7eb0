"""Samples of a language method, kept for inspection: a compressed file per update, thinned out as they become many."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

FILES = 200
"""Most files that are kept."""


def keep_rollouts(directory: Path, iteration: int, rows: list[dict[str, Any]]) -> None:
    """Store what was sampled in a turn.

    Args:
        directory: of the run.
        iteration: number of the turn.
        rows: of completions, as JSON; none leave no file.

    Raises:
        OSError: the directory cannot be written.
    """
    if not rows:
        return
    folder = directory / "rollouts"
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path = folder / f"update-{iteration:07d}.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    files = sorted(folder.glob("update-*.jsonl.gz"))
    if len(files) > FILES:  # keep the first, the last and every second one in between
        for old in files[1:-1:2]:
            old.unlink()
