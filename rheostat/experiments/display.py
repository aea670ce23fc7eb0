"""One progress display for a whole grid of runs: a line for everything, with the time left, and a line per method."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rheostat.analysis.metrics import HEADLINES, describe
from rheostat.experiments.grid import GridRun
from rheostat.terminal import clock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_PERIOD = 10.0
"""Seconds between lines where there is no terminal."""


class Quiet:
    """No display; notes are kept."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, runs: Sequence[GridRun], jobs: int) -> None:
        """Nothing."""

    def update(self) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Store the note."""
        self.notes.append(text)

    def stop(self) -> None:
        """Nothing."""


class GridBar:
    """Live bars on a terminal; elsewhere one plain line every ten seconds, so that logs stay readable."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.live: Progress | None = None
        self.last = 0.0

    def start(self, runs: Sequence[GridRun], jobs: int) -> None:
        """Begin showing."""
        self.runs, self.jobs, self.began = runs, jobs, time.monotonic()
        self.first = sum(run.steps for run in runs)
        self.groups = {run.group: [other for other in runs if other.group == run.group] for run in runs}
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self.live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28 if (screen := Console(stderr=True)).width >= 100 else 12),
            TaskProgressColumn(),
            TextColumn("{task.fields[line]}"),
            console=screen,
            refresh_per_second=4,
        )
        self.tasks: dict[str, TaskID] = {"": self.live.add_task(f"[bold]{self.title}", total=sum(run.total for run in runs), line="")}
        for group, members in self.groups.items():
            self.tasks[group] = self.live.add_task(f"  {group}", total=sum(run.total for run in members), line="")
        self.live.start()
        self.update()

    def update(self) -> None:
        """Show the progress of all runs."""
        now = time.monotonic()
        if self.live is None:
            if now - self.last >= QUIET_PERIOD:
                self.last = now
                share = sum(min(run.steps, run.total) for run in self.runs) / max(1, sum(run.total for run in self.runs))
                groups = " | ".join(f"{group} {self._group_line(members)}" for group, members in self.groups.items())
                print(f"{self.title}: {share:.0%}  {self._overall_line(now)}  {groups}", file=sys.stderr, flush=True)
            return
        done = sum(min(run.steps, run.total) for run in self.runs)
        self.live.update(self.tasks[""], completed=done, line=self._overall_line(now))
        for group, members in self.groups.items():
            completed = sum(min(run.steps, run.total) for run in members)
            self.live.update(self.tasks[group], completed=completed, line=f"[dim]{self._group_line(members)}")

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        if self.live is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self.live.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Leave the display as it stands."""
        if self.live is not None:
            self.update()
            self.live.stop()

    def _overall_line(self, now: float) -> str:
        finished = sum(run.state == "finished" for run in self.runs)
        speed = (sum(run.steps for run in self.runs) - self.first) / max(now - self.began, 1e-9)
        left = time_left(self.runs, self.jobs, now)
        text = f"{finished}/{len(self.runs)} runs  {speed:,.0f} steps/s"
        return f"{text}  {clock(left)} left" if left is not None else text

    @staticmethod
    def _group_line(members: Sequence[GridRun]) -> str:
        finished = sum(run.state == "finished" for run in members)
        parts = [f"{finished}/{len(members)} seeds"]
        metric = next((key for key in HEADLINES if any(key in run.headlines for run in members)), None)
        if metric is not None:
            values = [run.headlines[metric] for run in members if metric in run.headlines]
            parts.append(f"{describe(metric).label.lower()} {sum(values) / len(values):,.4g}")
        failed = sum(run.state == "failed" for run in members)
        return "  ".join([*parts, *([f"{failed} failed"] if failed else [])])


def time_left(runs: Sequence[GridRun], jobs: int, now: float) -> float | None:
    """Seconds until the grid is done, from the speed of each group's running and finished runs; None before any has moved.

    Work is spread over ``jobs`` workers, but the last run cannot be split.
    """
    rates: dict[str, list[float]] = {}
    for run in runs:
        if run.began and run.steps > run.first and run.state == "running":
            rates.setdefault(run.group, []).append((run.steps - run.first) / (now - run.began))
    if not rates:
        return None
    known = {group: sum(values) / len(values) for group, values in rates.items()}
    average = sum(known.values()) / len(known)
    remaining = [max(0, run.total - run.steps) / known.get(run.group, average) for run in runs if run.active]
    return max(sum(remaining) / max(1, jobs), max(remaining, default=0.0))
