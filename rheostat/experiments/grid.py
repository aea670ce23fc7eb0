"""Many runs side by side: one worker process per run, as many at a time as there are cores, stopped and resumed together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from rheostat.analysis.metrics import HEADLINES
from rheostat.experiments.worker import FINISHED, STOPPED
from rheostat.training.settings import Settings
from rheostat.training.signals import listening

State = Literal["waiting", "running", "finished", "stopped", "failed"]

PATIENCE = 120.0
"""Seconds a worker has to save its run."""
PERIOD = 0.2
TAIL = 32_768


@dataclass
class GridRun:
    """One run of a grid: its place, its definition, and its progress."""

    name: str
    group: str
    """Its group in the display, e.g. the method."""
    directory: Path
    settings: Settings
    state: State = "waiting"
    steps: int = 0
    headlines: dict[str, float] = field(default_factory=dict)
    """The newest value of each curve that stands for performance, by its metric."""
    error: str = ""
    began: float = 0.0
    first: int = 0
    """Steps it had when this process started it."""

    @property
    def total(self) -> int:
        """Its budget."""
        return self.settings.steps

    @property
    def active(self) -> bool:
        """Whether it has ended, finished or failed."""
        return self.state in ("waiting", "running")

    def refresh(self) -> None:
        """Read the progress of the run from its files."""
        row = last_row(self.directory / "metrics.jsonl")
        if row is not None:
            self.steps = int(row.get("steps", self.steps))
            self.headlines |= {key: float(row[key]) for key in HEADLINES if row.get(key) is not None}
        if (self.directory / "summary.json").exists():
            self.state, self.steps = "finished", max(self.steps, self.total)


class Display(Protocol):
    """The display of a running grid."""

    def start(self, runs: Sequence[GridRun], jobs: int) -> None: ...
    def update(self) -> None: ...
    def note(self, text: str) -> None: ...
    def stop(self) -> None: ...


@dataclass
class _Worker:
    run: GridRun
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int = 0


@dataclass
class Grid:
    """Runs ``runs`` with at most ``jobs`` workers.

    Attributes:
        runs: the runs; finished ones are skipped, begun ones resumed.
        jobs: workers at a time.
        logs: folder for the output of the workers.
        command: stored in every run as the command that makes it.
        display: shows progress.
    """

    runs: Sequence[GridRun]
    jobs: int
    logs: Path
    command: str
    display: Display
    workers: list[_Worker] = field(default_factory=list)

    def run(self) -> bool:
        """Work until every run is finished or has failed.

        Returns:
            False if a signal (Ctrl-C, SIGTERM) stopped it; every worker has then saved its run.
        """
        for run in self.runs:
            run.refresh()
        queue = [run for run in self.runs if run.state == "waiting"]
        self.display.start(self.runs, self.jobs)
        try:
            with listening() as stop:
                while (queue or self.workers) and not stop():
                    while queue and len(self.workers) < self.jobs:
                        self.workers.append(self._start(queue.pop(0)))
                    time.sleep(PERIOD)
                    self._collect()
                    self.display.update()
                if stop():
                    self._stop_all()
                    return False
        finally:
            self._kill_all()
            self.display.stop()
        return True

    def _start(self, run: GridRun) -> _Worker:
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{run.name}.log"
        start = log.stat().st_size if log.exists() else 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "rheostat.experiments.worker"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops its workers in good order
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; its log holds the reason
            process.stdin.write((json.dumps(self._job(run)) + "\n").encode())
            process.stdin.flush()
        run.state, run.began, run.first = "running", time.monotonic(), run.steps
        return _Worker(run, process, log, start)

    def _job(self, run: GridRun) -> dict[str, Any]:
        return {
            "directory": str(run.directory),
            "settings": run.settings.to_json(),
            "command": self.command,
            "lock": str(self.logs / f"{run.name}.lock"),
        }

    def _collect(self) -> None:
        for worker in list(self.workers):
            code = worker.process.poll()
            worker.run.refresh()
            if code is None:
                worker.run.state = "running"  # the summary is there a moment before the last checkpoint is
                continue
            self.workers.remove(worker)
            _close(worker.process)
            if code == FINISHED:
                worker.run.state = "finished"
            elif code in (STOPPED, -signal.SIGTERM):
                worker.run.state = "stopped"
            else:
                worker.run.state, worker.run.error = "failed", last_words(worker.log, worker.log_start, code)
                self.display.note(f"{worker.run.name} failed: {worker.run.error}")

    def _stop_all(self) -> None:
        self.display.note(f"Stopping; {len(self.workers)} run{'s' if len(self.workers) != 1 else ''} being saved ...")
        for worker in self.workers:
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE
        while self.workers and time.monotonic() < deadline:
            time.sleep(PERIOD)
            self._collect()
            self.display.update()

    def _kill_all(self) -> None:
        """Nothing outlives the parent; checkpoints are atomic, so even this loses no more than the work since the last one."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
            _close(worker.process)
            worker.run.state = "stopped"
        self.workers.clear()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole line of a JSON-lines file, read from its end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")[:-1]  # the part after the last line break is still being written
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(row, dict):
            return row
    return None


def last_words(log: Path, start: int, code: int) -> str:
    """The last line a failed worker printed since ``start``, and the file with the rest."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    reason = lines[-1].strip() if lines else f"the process ended with status {code} and no word"
    return f"{reason} (log: {log})"
