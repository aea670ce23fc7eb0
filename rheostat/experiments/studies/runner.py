"""Runs the cells of a study over the cores: one display with the time left; finished cells are kept."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rheostat.experiments.studies.jobs import Cell, Record, compute, read, with_needs
from rheostat.terminal import clock


class Watcher(Protocol):
    """The display of the cells while they are computed."""

    def start(self, cells: Sequence[Cell], stored: int, jobs: int) -> None: ...
    def finished(self, cell: Cell, record: Record) -> None: ...
    def stop(self) -> None: ...


def run_cells(cells: Sequence[Cell], folder: Path, *, jobs: int = 2, watcher: Watcher | None = None) -> dict[str, Record]:
    """Compute the cells that are not stored yet and return all records.

    Args:
        cells: the requested ones; those that they need are added.
        folder: where cells are stored, one subfolder each.
        jobs: worker processes, at low priority with one torch thread each; 0 computes in this process.
        watcher: called for every finished cell; None shows nothing.

    Returns:
        Stored records by key.

    Raises:
        RheostatError: a stored cell cannot be read, or the source changed meanwhile.
        Exception: raised by a cell; those that finished before are kept.
    """
    every = {cell.key: cell for cell in with_needs(cells)}
    done = {key: record for key in every if (record := read(folder, key)) is not None}
    waiting = {key: cell for key, cell in every.items() if key not in done}
    watcher = watcher or Nothing()
    watcher.start(list(waiting.values()), len(done), jobs)
    try:
        if not jobs:
            for key, cell in waiting.items():
                done[key] = compute(cell, folder, key)
                watcher.finished(cell, done[key])
        elif waiting:
            _in_parallel(every, waiting, done, folder, jobs, watcher)
    finally:
        watcher.stop()
    return done


def _in_parallel(
    every: dict[str, Cell], waiting: dict[str, Cell], done: dict[str, Record], folder: Path, jobs: int, watcher: Watcher
) -> None:
    spawn = multiprocessing.get_context("spawn")
    with terminable(), ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_be_polite, initargs=(os.getpid(),)) as pool:
        running: dict[Future[Record], str] = {}
        try:
            while waiting or running:
                ready = [key for key, cell in waiting.items() if all(need.key in done for need in cell.needs)]
                for key in ready[: max(0, jobs + 1 - len(running))]:  # one in reserve, so that no worker waits for the next
                    running[pool.submit(compute, waiting.pop(key), folder, key)] = key
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key = running.pop(future)
                    done[key] = future.result()
                    watcher.finished(every[key], done[key])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):  # runs save their state; other cells are small and start over
                process.terminate()
            raise


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM stops like Ctrl-C, so that no worker is left behind."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _be_polite(parent: int) -> None:
    """Low priority and one thread: other work on the machine goes first. The worker ends with its parent, even where that was killed."""
    import torch

    os.nice(10)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then stops its workers

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Nothing:
    """Shows nothing."""

    def start(self, cells: Sequence[Cell], stored: int, jobs: int) -> None: ...
    def finished(self, cell: Cell, record: Record) -> None: ...
    def stop(self) -> None: ...


class StudyBar:
    """A bar with the time left on a terminal; elsewhere a line per finished cell.

    The time left is the declared cost of the remaining cells, scaled by the ratio of time to cost of the finished ones.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.live: Any = None

    def start(self, cells: Sequence[Cell], stored: int, jobs: int) -> None:
        """Begin showing."""
        self.total, self.stored, self.count = stored + len(cells), stored, stored
        self.cost, self.spent, self.began = sum(cell.cost for cell in cells), 0.0, time.monotonic()
        text = f"{self.title}: {stored} of {self.total} cells are stored; {len(cells)} to compute in {max(1, jobs)} processes."
        print(text, file=sys.stderr, flush=True)
        if not cells or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.live = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
        )
        self.task = self.live.add_task(self.title, total=self.total, completed=stored, left="")
        self.live.start()

    def finished(self, cell: Cell, record: Record) -> None:
        """Count a cell."""
        self.count += 1
        self.spent += cell.cost
        left = (time.monotonic() - self.began) * (self.cost - self.spent) / self.spent
        line = f"{cell.label}: {record['seconds']:.1f} s"
        if self.live is None:
            print(f"[{self.count}/{self.total}] {line}; about {clock(left)} left", file=sys.stderr, flush=True)
        else:
            self.live.console.print(line, markup=False, highlight=False)
            self.live.update(self.task, completed=self.count, left=f"about {clock(left)} left")

    def stop(self) -> None:
        """Leave the display as it stands."""
        if self.live is not None:
            self.live.stop()
