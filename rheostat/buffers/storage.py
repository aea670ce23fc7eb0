"""Preallocated rows of named fields, in memory or, when they are large, in a mapped file."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.errors import RheostatError

Fields = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Name to dtype and shape of one row's value."""

MOST = 0.9
"""Share of the free disk that a mapped file may take, and share of the free memory that the caller's other data may take."""
CONTAINERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where a container's limit and use of memory stand, and under which names."""


class Layout:
    """How the fields of a row lie one after another in bytes: the widest types first, so that every value is aligned.

    A row is one stretch of memory because drawing rows from a large store waits for memory, not for arithmetic: a row that lies in one
    place is fetched in about the time of one of its fields.

    Args:
        fields: dtype and shape of each.
    """

    def __init__(self, fields: Fields) -> None:
        self.fields = dict(sorted(fields.items(), key=lambda item: -item[1][0].itemsize))  # stable: otherwise as given
        self.offsets: dict[str, int] = {}
        end = 0
        for name, (dtype, shape) in self.fields.items():
            self.offsets[name] = end
            end += dtype.itemsize * prod(shape)
        self.width = -(-end // 8) * 8
        self._places = [
            (name, dtype, shape, self.offsets[name] // dtype.itemsize, self.offsets[name] // dtype.itemsize + prod(shape))
            for name, (dtype, shape) in self.fields.items()
        ]

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """The fields ``[n, ...]`` of rows in bytes ``[n, width]`` (uint8), without a copy."""
        typed: dict[torch.dtype, Tensor] = {}
        result = {}
        for name, dtype, shape, start, stop in self._places:  # the fewest operations: this runs for every batch that is drawn
            values = typed.get(dtype)
            if values is None:
                values = typed[dtype] = rows.view(dtype)
            if len(shape) == 1:
                result[name] = values[:, start:stop]
            else:
                result[name] = values[:, start:stop].unflatten(1, shape) if shape else values.select(1, start)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Names, dtypes and shapes as text and numbers."""
        return {name: {"dtype": str(dtype).removeprefix("torch."), "shape": list(shape)} for name, (dtype, shape) in self.fields.items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Layout:
        """The layout that ``state_dict`` described."""
        return cls({name: (getattr(torch, entry["dtype"]), tuple(entry["shape"])) for name, entry in state.items()})


def free_memory() -> int | None:
    """Bytes of memory that can be taken now without swapping, within the limits of a container; None where the system does not tell.

    Where the system tells only how much memory is built in, that number.
    """
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
            if not free and name in getattr(os, "sysconf_names", {}):
                free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf(name))
    for folder, limit, used in CONTAINERS:
        try:
            cache = [line.split()[1] for line in (folder / "memory.stat").read_text().splitlines() if line.startswith("inactive_file ")]
            taken = int((folder / used).read_text()) - sum(map(int, cache))  # files that were read make room when memory is needed
            free.append(max(int((folder / limit).read_text()) - taken, 0))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(free, default=None)


def allocate(capacity: int, width: int, *, beside: float = 0.0, folder: Path | None = None, memory_share: float = 0.5) -> Tensor:
    """Zeroed rows in bytes ``[capacity, width]``: in memory when they take at most ``memory_share`` of what is free, else in a file.

    The file has no name once it is mapped, so its space is given back when the tensor is let go, and also when the process is killed.

    Args:
        capacity: rows.
        width: bytes of a row.
        beside: bytes per row that the caller keeps in memory in addition.
        folder: where a file may go; None: memory only.
        memory_share: 0 always takes the file, where there is a folder.

    Raises:
        RheostatError: it fits neither; the message gives what is needed, what there is and which capacity would fit.
    """
    needed, free = capacity * (width + beside), free_memory()
    if free is None or needed <= memory_share * free:
        return torch.zeros(capacity, width, dtype=torch.uint8)
    rooms = [memory_share * free / (width + beside)]
    there = f"{_gigabytes(free)} of memory are free, of which {memory_share:.0%} may be used"
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            disk = shutil.disk_usage(folder).free
            if capacity * width <= MOST * disk and capacity * beside <= MOST * free:
                return _mapped(folder, capacity, width)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RheostatError(f"The replay cannot be kept in {folder}: {reason}; name another folder or lower its capacity.") from error
        rooms.append(min(MOST * disk / width, MOST * free / beside if beside else math.inf))
        there += f", and {_gigabytes(disk)} of the disk of {folder}, of which {MOST:.0%} may be used"
    advice = "" if folder is not None else ", or give it a folder on a disk"
    raise RheostatError(
        f"A replay of {capacity:,} steps needs {_gigabytes(needed)} ({width + beside:,.0f} bytes a step), but {there}: choose a capacity "
        f"of at most {int(max(rooms)):,}{advice}."
    )


def _mapped(folder: Path, capacity: int, width: int) -> Tensor:
    """A file of zeros, mapped; its space is reserved now, so that a disk that fills up later cannot take it away."""
    descriptor, name = tempfile.mkstemp(prefix="replay-", dir=folder)
    try:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(descriptor, 0, capacity * width)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
        return torch.from_file(name, shared=True, size=capacity * width, dtype=torch.uint8).view(capacity, width)
    finally:
        os.close(descriptor)
        os.unlink(name)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e9:.2g} GB"
