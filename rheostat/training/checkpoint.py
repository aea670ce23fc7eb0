"""Checkpoints: atomic, checksummed, never pickled.

A state is nested dicts and lists of tensors, numbers, strings, booleans and None. Tensors go to ``state.safetensors``, everything else to
``state.json`` with a pointer where a tensor stood, and ``manifest.json`` holds the SHA-256 of both, what the checkpoint counts
outside of its folder (see :mod:`rheostat.training.logs`), and a digest of itself. The folder is written under a temporary
name, flushed to disk and renamed: a kill at any moment leaves either the whole checkpoint or none, and the previous one stays untouched.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.files import sha256
from rheostat.training.manifest import FORMAT, STATE, digest_of, names, read_manifest

POINTER = "$tensor"


def split_state(state: Any, *, copy: bool = True) -> tuple[Any, dict[str, Tensor]]:
    """Separate a nested state into JSON (with pointers) and a flat dict of tensors.

    Args:
        state: what to separate.
        copy: clone every tensor; False only where the file format asks for it, so that a replay larger than the memory can be written.

    Raises:
        RheostatError: naming the path of a value that is neither a tensor nor JSON.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()

    def split(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            plain = value.detach().contiguous()
            place = plain.untyped_storage().data_ptr()
            tensors[path] = plain.clone() if copy or place in seen else plain  # views of one storage would be refused by the format
            seen.add(place)
            return {POINTER: path}
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise RheostatError(f"A saved state needs text keys; at {path or 'the top'} it has {list(value)[:5]}.")
            return {key: split(inner, f"{path}/{key}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [split(inner, f"{path}/{index}") for index, inner in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise RheostatError(
            f"The state at {path!r} is a {type(value).__name__}: a checkpoint holds tensors, numbers, text, lists and dicts only."
        )

    return split(state, ""), tensors


def join_state(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of :func:`split_state` (tuples come back as lists)."""
    if isinstance(skeleton, dict):
        if set(skeleton) == {POINTER}:
            return tensors[skeleton[POINTER]]
        return {key: join_state(value, tensors) for key, value in skeleton.items()}
    if isinstance(skeleton, list):
        return [join_state(value, tensors) for value in skeleton]
    return skeleton


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(folder: Path, name: str, state: dict[str, Any], *, keep: int = 2, facts: dict[str, Any] | None = None) -> Path:
    """Save ``state`` as ``folder/name`` and drop all but the newest ``keep`` checkpoints.

    Args:
        folder, name: where; folders with other names than ``iteration-NUMBER`` are never dropped.
        state: nested dicts and lists of tensors and plain values.
        keep: how many checkpoints.
        facts: further entries of the manifest, as JSON.

    Raises:
        RheostatError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    skeleton, tensors = split_state(state, copy=False)
    final, temporary = folder / name, folder / f".{name}.writing"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in (temporary, *folder.glob(".iteration-*.writing")):  # by a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        save_file(tensors, temporary / "state.safetensors")
        (temporary / "state.json").write_text(json.dumps(skeleton))
        manifest = {"format": FORMAT, "sha256": {file: sha256(temporary / file) for file in STATE}} | (facts or {})
        (temporary / "manifest.json").write_text(json.dumps(manifest | {"digest": digest_of(manifest)}))
        for file in (*STATE, "manifest.json", "."):
            _flush(temporary / file)
        if final.exists():  # an interrupted run saved this step before: same step, same state
            shutil.rmtree(final)
        os.replace(temporary, final)
        _flush(folder)
    except (OSError, RuntimeError) as error:  # safetensors reports input/output errors as its own exception type
        shutil.rmtree(temporary, ignore_errors=True)
        raise _unwritable(final, error) from error
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):
            raise _unwritable(final, error) from error
        raise
    for old in names(folder)[:-keep]:
        shutil.rmtree(folder / old)
    return final


def _unwritable(path: Path, error: Exception) -> RheostatError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    reason = "the disk is full" if full else str(error)
    return RheostatError(f"Could not save the checkpoint {path}: {reason}; earlier checkpoints are intact, make room and resume the run.")


def read(path: Path) -> dict[str, Any]:
    """Load one checkpoint, verifying its checksums.

    Raises:
        RheostatError: it is missing, incomplete or damaged; names the file.
    """
    try:
        for file, expected in read_manifest(path)["sha256"].items():
            if sha256(path / file) != expected:
                raise RheostatError(f"The checkpoint {path} is damaged: {file} does not match its checksum.")
        return join_state(json.loads((path / "state.json").read_text()), load_file(path / "state.safetensors"))
    except RheostatError:
        raise
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise RheostatError(f"The checkpoint {path} is damaged or incomplete ({type(error).__name__}: {error}).") from error


def read_newest(folder: Path, check: Callable[[Path], None] | None = None) -> tuple[str, dict[str, Any], list[str]]:
    """The newest checkpoint that is whole: its name, its state, and one sentence for every damaged one that was passed over.

    Args:
        folder: of the checkpoints.
        check: raises a RheostatError for any other reason not to use one.

    Raises:
        RheostatError: there is no checkpoint, or none is whole.
    """
    refused: list[str] = []
    for name in reversed(names(folder)):
        try:
            state = read(folder / name)
            if check is not None:
                check(folder / name)
            return name, state, refused
        except RheostatError as error:
            refused.append(str(error))
    if refused:
        raise RheostatError(f"No usable checkpoint is left in {folder}: {' '.join(refused)}")
    raise RheostatError(
        f"There is no checkpoint in {folder}: the run was stopped before its first one, or they were removed; start it again in another "
        "directory."
    )


def tensors_of(state: Any) -> dict[str, torch.Tensor]:
    """All tensors of a nested state by path, for comparing two states bit by bit."""
    return split_state(state)[1]
