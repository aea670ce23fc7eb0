"""The manifests of checkpoints, read without their tensors."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError, shown

STATE = ("state.safetensors", "state.json")
FORMAT = 2
"""1 had no digest of the manifest, and counted nothing outside of the folder."""
NAME = re.compile(r"iteration-\d+")


def digest_of(manifest: dict[str, Any]) -> str:
    """The SHA-256 of a manifest without its own digest, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def names(folder: Path) -> list[str]:
    """Names of the finished checkpoints, oldest first; copies under other names are no checkpoints of the run."""
    found = [path.name for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda name: int(name.rpartition("-")[2]))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of one checkpoint, verified; its other files are not read.

    Raises:
        RheostatError: it is missing or damaged, or of a later version.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        version, digests = manifest["format"], dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RheostatError(f"The checkpoint {path} is damaged or incomplete ({type(error).__name__}: {error}).") from error
    if version != 1:
        said = manifest.pop("digest", None)
        if said != digest_of(manifest) and version == FORMAT:
            raise RheostatError(f"The checkpoint {path} is damaged: manifest.json does not match its own digest.")
    if version not in (1, FORMAT):
        raise RheostatError(f"The checkpoint {path} has the format {shown(version)}, which this version of Rheostat does not read.")
    if set(digests) != set(STATE):
        raise RheostatError(f"The checkpoint {path} is damaged: manifest.json does not name {' and '.join(STATE)}.")
    return dict(manifest)
