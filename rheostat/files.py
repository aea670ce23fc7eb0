"""Files: written whole or not at all, digested, and the folders where they go."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a text in UTF-8: a reader sees either the old text or all of the new one.

    Raises:
        OSError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """The cache folder: ``cache_dir``, else ``$RHEOSTAT_CACHE``, else ``$XDG_CACHE_HOME/rheostat``, else ``~/.cache/rheostat``."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    if os.environ.get("RHEOSTAT_CACHE"):
        return Path(os.environ["RHEOSTAT_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "rheostat"


def runs_folder() -> Path:
    """Where runs go when no directory is given: ``$RHEOSTAT_RUNS``, else ``runs``."""
    return Path(os.environ.get("RHEOSTAT_RUNS", "runs"))
