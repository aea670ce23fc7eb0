"""The rows every benchmark prints: what was done, with whom we are compared, and both speeds from the same run."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One comparison."""

    work: str
    """Method and environment, for example ``PPO HalfCheetah-v5``."""
    peer: str
    """The other library, with its version."""
    ours: float
    theirs: float
    unit: str
    """Of both numbers; larger is better, except for megabytes."""
    peak_memory_mb: float
    """Our peak resident memory."""
    their_peak_memory_mb: float | None = None
    """The peer's, where it ran in a process of its own."""
    turns: tuple[float, ...] = ()
    """Ratios of the single turns, where both sides took turns: their median is the ratio."""

    @property
    def ratio(self) -> float:
        """How many times better we are: ours over theirs, or theirs over ours for megabytes."""
        if self.turns:
            return statistics.median(self.turns)
        return self.theirs / max(self.ours, 1e-9) if self.unit == "MB" else self.ours / self.theirs

    def to_json(self) -> dict[str, str | float]:
        """The row as a flat object."""
        return {
            "work": self.work,
            "peer": self.peer,
            "ours": round(self.ours, 3),
            "theirs": round(self.theirs, 3),
            "unit": self.unit,
            "ratio": round(self.ratio, 3),
            "peak_memory_mb": round(self.peak_memory_mb, 1),
        } | ({} if self.their_peak_memory_mb is None else {"their_peak_memory_mb": round(self.their_peak_memory_mb, 1)})


def table(header: list[str], lines: list[list[str]]) -> str:
    """Plain text in columns, the first one to the left and the numbers to the right."""
    cells = [header, *lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    aligned = [
        [cell.ljust(width) if not i else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))]
        for line in cells
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def machine() -> str:
    """Processor, number of cores this process may use, and the load on them, because other jobs change every number."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {cores} cores{load}"


def median(values: Iterable[float]) -> float:
    """Of interleaved repeats, so that a slow spell of the machine hits every side alike."""
    return statistics.median(values)
