"""What a person sees while a run works: steps, speed, time left, current return, and the meter."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

HEADLINE = (
    ("episode_return", "return", "{:.1f}"),
    ("evaluation_return", "eval", "{:.1f}"),
    ("accuracy", "accuracy", "{:.2f}"),
    ("meter/ess", "ess", "{:.2f}"),
    ("meter/kl_behaviour_k3", "kl", "{:.4f}"),
    ("meter/clip_fraction", "clipped", "{:.2f}"),
    ("meter/age_mean", "age", "{:.1f}"),
    ("meter/sampling_error", "sampling error", "{:.4f}"),
)


class Progress(Protocol):
    """What the loop tells about itself."""

    def start(self, done: int, total: int, unit: str) -> None: ...
    def update(self, done: int, metrics: dict[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...
    def stop(self) -> None: ...


class Silent:
    """No display."""

    def start(self, done: int, total: int, unit: str) -> None:
        """Nothing."""

    def update(self, done: int, metrics: dict[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


def headline(metrics: dict[str, Any]) -> str:
    """The few numbers worth a line, in a fixed order."""
    return "  ".join(f"{label} {form.format(metrics[name])}" for name, label, form in HEADLINE if metrics.get(name) is not None)


class Bar:
    """A live rich bar on a terminal; elsewhere one plain line every ten seconds, so that logs stay readable."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.metrics: dict[str, Any] = {}
        self.last = 0.0
        self.live: Any = None

    def start(self, done: int, total: int, unit: str) -> None:
        """Begin at ``done`` of ``total`` units."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.total, self.unit, self.first, self.began = total, unit, done, time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console

            columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
            times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("[cyan]{task.fields[line]}"))
            self.live = Progress(*columns, *times, console=Console(stderr=True), refresh_per_second=4)
            self.task = self.live.add_task(self.title, total=total, completed=done, speed="", line="")
            self.live.start()

    def update(self, done: int, metrics: dict[str, Any]) -> None:
        """Show where the run is."""
        self.metrics |= metrics
        now = time.monotonic()
        if now - self.last < (0.2 if self.live else 10.0):
            return
        self.last = now
        speed = (done - self.first) / max(now - self.began, 1e-9)
        if self.live:
            self.live.update(self.task, completed=min(done, self.total), speed=f"{speed:,.0f}/s", line=headline(self.metrics))
        else:
            left = (self.total - done) / max(speed, 1e-9)
            print(
                f"{self.title}: {done:,}/{self.total:,} {self.unit}, {speed:,.0f}/s, {left:.0f} s left  {headline(self.metrics)}",
                file=sys.stderr,
            )

    def note(self, text: str) -> None:
        """A sentence above the bar."""
        if self.live:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Leave the display as it stands."""
        if self.live:
            self.live.update(self.task, line=headline(self.metrics))
            self.live.refresh()
            self.live.stop()
