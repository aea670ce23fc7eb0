"""The logs of a run as a part of its checkpoints.

``metrics.jsonl`` is flushed to disk before the checkpoint that counts it, and the manifest of that checkpoint holds how many bytes there
were and their SHA-256. So every later reader, including the run itself, detects whether a log was cut or altered. ``timings.jsonl`` differs
every time: it is only ever appended to, and of two rows of one iteration the later one counts.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rheostat.errors import RheostatError
from rheostat.json_text import whole
from rheostat.training.manifest import names, read_manifest

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
MOST_SECONDS = 1e12
"""That a row may say; more is damage."""
WHOLE = ("config.json", "sandbox.json", "summary.json")
"""Files that a checkpoint counts besides the log."""

Counted = dict[str, Any]
"""``bytes`` and ``sha256`` of a file, or of how it begins."""


def _begin(path: Path, size: float = math.inf) -> tuple[int, Any]:
    """How many bytes a file has, at most ``size``, and their hash, which can be updated further; 0 bytes where there is no file."""
    total, found = hashlib.sha256(), 0
    if path.is_file():
        with path.open("rb") as file:
            while part := file.read(int(min(size - found, 2**20))):
                total.update(part)
                found += len(part)
    return found, total


def count(path: Path) -> Counted:
    """How many bytes a file has, and their digest; 0 bytes where there is no file."""
    found, total = _begin(path)
    return {"bytes": found, "sha256": total.hexdigest()}


def count_whole(directory: Path) -> dict[str, Counted]:
    """Byte counts and digests of the run's other files that exist."""
    return {name: count(directory / name) for name in WHOLE if (directory / name).is_file()}


def fault(path: Path, counted: Counted) -> str | None:
    """What is wrong with a file that a checkpoint counted, as the end of a sentence; None where nothing is."""
    size = int(counted["bytes"])
    if size and not path.is_file():
        return "is gone"
    left, total = _begin(path, size if path.name == METRICS else math.inf)
    if path.name == METRICS and left < size:
        return f"was cut: {left:,} of the {size:,} bytes that the run had written are left, so its last rows are missing"
    digest = counted.get("sha256")
    return None if digest in (None, total.hexdigest()) else "is not what the run wrote: it was changed afterwards"


def faults(directory: Path) -> tuple[list[str], list[str]]:
    """Warnings for readers of a run's files: faults of the files, and what cannot be checked.

    The newest whole checkpoint holds what the run wrote.
    """
    folder = directory / "checkpoints"
    damaged: list[str] = []
    for name in reversed(names(folder)):
        try:
            manifest = read_manifest(folder / name)
        except RheostatError as error:
            damaged.append(str(error))
            continue
        files: Mapping[str, Counted] | None = manifest.get("files")
        if files is None:
            return [], ["A run was saved by a version that kept no digest of the log: whether its log is whole cannot be told."]
        wrong = {file: fault(directory / file, counted) for file, counted in files.items()}
        return [*damaged, *(f"{directory / file} {text}." for file, text in wrong.items() if text)], [
            str(each) for each in manifest.get("notes", [])
        ]
    if (directory / METRICS).is_file():
        return [], ["A run has no whole checkpoint: whether its log is whole cannot be told."]
    return [], []


class Logs:
    """Writes both logs of a run.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._files: tuple[BinaryIO, BinaryIO] | None = None

    @property
    def counted(self) -> Counted:
        """What was written to ``metrics.jsonl`` so far."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def go_on(self, counted: Counted) -> None:
        """Return to the place at which a checkpoint counted the log.

        Args:
            counted: its bytes and, unless it is of an old version, their digest.

        Raises:
            RheostatError: the log was cut or altered before that.
        """
        path = self.directory / METRICS
        wrong = fault(path, counted)
        if wrong is not None:
            raise RheostatError(f"{path} {wrong}: put it back as it was, or start a new run.")
        self._bytes, self._digest = _begin(path, int(counted["bytes"]))

    def open(self) -> None:
        """Cut ``metrics.jsonl`` back to what is counted, and append from there."""
        path, timings = self.directory / METRICS, self.directory / TIMINGS
        if path.exists():
            os.truncate(path, self._bytes)
        torn = timings.is_file() and timings.stat().st_size > 0 and not timings.read_bytes().endswith(b"\n")
        self._files = path.open("ab"), timings.open("ab")
        if torn:
            self._files[1].write(b"\n")

    def append(self, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        """Write a row of each; other programs follow the run through these files, so they are written row by row.

        Raises:
            ValueError: a number of ``metrics`` that JSON cannot hold.
        """
        assert self._files is not None
        line = (json.dumps(metrics, allow_nan=False) + "\n").encode()
        self._files[0].write(line)
        self._files[1].write((json.dumps(timing) + "\n").encode())
        for file in self._files:
            file.flush()
        self._digest.update(line)
        self._bytes += len(line)

    def sync(self) -> None:
        """Flush what was written to the disk: a checkpoint counts it next."""
        for file in self._files or ():
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Flush and close both."""
        self.sync()
        for file in self._files or ():
            file.close()
        self._files = None


def read_timings(directory: Path) -> list[dict[str, Any]]:
    """Rows of ``timings.jsonl``, one per iteration, in order; lines that are no such rows are left out."""
    path = directory / TIMINGS
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
            iteration, seconds = row["iteration"], row["seconds"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if type(iteration) is int and isinstance(seconds, int | float) and 0 <= seconds < MOST_SECONDS:
            rows[iteration] = row
    return [rows[iteration] for iteration in sorted(rows)]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; a last line that was cut off in the middle is left out.

    Raises:
        RheostatError: another line is damaged.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line, parse_int=whole)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise RheostatError(f"{path} is damaged at line {number}: {error}.") from error
        if not isinstance(row, dict):
            raise RheostatError(f"{path} is damaged at line {number}: it holds no JSON object.")
        rows.append(row)
    return rows
