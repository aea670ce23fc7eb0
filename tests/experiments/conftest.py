"""Grids of runs whose workers are no processes, where processes are not the point."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from rheostat.experiments import worker
from rheostat.experiments.grid import Grid, GridRun, _Worker


@dataclass
class Ended:
    """In the place of a process that has ended."""

    code: int
    stdin: None = None

    def poll(self) -> int:
        """Its exit status."""
        return self.code


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of a grid trains in this process, one after another, by what a worker does with the same job."""

    def start(self: Grid, run: GridRun) -> Any:
        self.logs.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(sys, "argv", sys.argv)  # the worker puts the noted command there
        return _Worker(run, Ended(worker.work(self._job(run))), self.logs / f"{run.name}.log", 0)  # type: ignore[arg-type]

    monkeypatch.setattr(Grid, "_start", start)
