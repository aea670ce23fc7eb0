"""The display of a running run: progress, speed, time left, curves with their change, the meter, and occasionally a sample.

On a terminal this is a few lines that are redrawn and fit its width; elsewhere it is one plain line at intervals, so that logs stay
readable. Text that a model wrote is shown as text: characters that steer a terminal become their codes, and nothing in it is markup.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from rheostat.terminal import clock, visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

    from rheostat.training.run import Run

CURVES = (
    ("evaluation_return", "evaluation return"),
    ("episode_return", "training return"),
    ("accuracy", "validation reward"),
    ("validation_preference_accuracy", "validation accuracy"),
    ("reward", "training reward"),
)
"""Metrics that have a line of their own, and what they are called there."""
METER = (
    ("meter/ess", "effective sample size", "{:.0%}"),
    ("meter/kl_behaviour_k3", "KL to the sampler", "{:.2g}"),
    ("meter/clip_fraction", "clip fraction", "{:.0%}"),
    ("meter/age_mean", "age of the data", "{:.2g} updates"),
    ("entropy", "entropy", "{:.3g}"),
    ("meter/sampling_error", "sampling error", "{:.2g}"),
    ("learning_rate", "learning rate", "{:.2g}"),
)
"""Metrics of the meter, the most important first: as many as fit are shown."""
LEVELS = "▁▂▃▄▅▆▇█"
LAST_EPISODES = 100
"""Episodes over which a training return is a mean, where there are as many."""
LIVE_PERIOD, PLAIN_PERIOD = 0.2, 10.0
"""Seconds between two refreshes, on a terminal and elsewhere."""
SAMPLE_PERIOD = 5.0, 60.0
"""Seconds between two samples, on a terminal and elsewhere."""
ONE_LINE = 120
"""Columns from which the head of the view is one line."""
LONGEST_SAMPLE = 1_000
"""Characters of a sample that are read."""


class Progress(Protocol):
    """What the training loop reports."""

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


@dataclass
class View:
    """The progress of a run as text of any width.

    Attributes:
        title: of the run.
        total, unit: its budget.
        done: how much of it is spent.
        speed: of it per second; 0 before anything moved.
        elapsed: seconds since the run was begun or resumed.
        metrics: the newest value of each.
        curves: all values of the metrics of :data:`CURVES`.
        sample: prompt, completion and reward of one row of the newest batch, as they are.
        plain_text: without characters that some terminals lack.
    """

    title: str
    total: int = 0
    unit: str = "steps"
    done: int = 0
    speed: float = 0.0
    elapsed: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    sample: tuple[str, str, float] | None = None
    plain_text: bool = False

    def take(self, metrics: dict[str, Any]) -> None:
        """Add a row of the log."""
        self.metrics |= metrics
        for name, _ in CURVES:
            if isinstance(value := metrics.get(name), int | float) and math.isfinite(value):
                self.curves.setdefault(name, []).append(value)

    @property
    def share(self) -> float:
        """Share of the budget that is spent."""
        return min(1.0, self.done / max(1, self.total))

    @property
    def pace(self) -> list[str]:
        """Speed and time left, where they are known."""
        if self.speed <= 0:
            return []
        return [f"{number(self.speed)} per second", f"{clock((self.total - self.done) / self.speed)} left"]

    def plain(self) -> str:
        """Everything in one line."""
        curves = [f"{label} {number(values[-1])}{self.change(name)}" for name, label in CURVES if (values := self.curves.get(name))]
        meter = [f"{label} {self.shown(name, form)}" for name, label, form in METER[:3] if self.metrics.get(name) is not None]
        head = f"{self.title}: {self.share:.0%} of {self.total:,} {self.unit}"
        return ", ".join([head, *self.pace, *curves, *meter])

    def lines(self, width: int) -> list[Text]:
        """The view, each line at most ``width`` columns."""
        lines = [*self._head(width), *self._curves(width), *self._meter(width), *self._sample()]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
            line.truncate(width, overflow="ellipsis")
        return lines

    def _head(self, width: int) -> Iterator[Text]:
        from rich.text import Text

        facts = f"{self.done:,} of {self.total:,} {self.unit}"
        detail = [facts, *self.pace]
        together = width >= ONE_LINE
        taken = f"{clock(self.elapsed)} so far"
        if together or len(" · ".join([*detail, taken])) <= width:
            detail.append(taken)
        title = Text(one_line(self.title), style="bold")
        title.truncate(max(10, width // 3), overflow="ellipsis")
        tail = f" {self.share:4.0%}" + ("  " + " · ".join(detail) if together else "")
        room = max(5, min(40, width - title.cell_len - len(tail) - 1))
        full = int(room * self.share)
        one, rest = ("#", "-") if self.plain_text else ("━", "─")
        yield Text.assemble(title, " ", (one * full, "cyan"), (rest * (room - full), "dim"), tail)
        if not together:
            yield Text(" · ".join(detail), style="dim")

    def _curves(self, width: int) -> Iterator[Text]:
        from rich.text import Text

        shown = [(name, label) for name, label in CURVES if self.curves.get(name)]
        values = [f"{number(self.curves[name][-1])}{self.change(name)}" for name, _ in shown]
        wide = max((len(value) for value in values), default=0)
        label_wide = max((len(label) for _, label in shown), default=0)
        for (name, label), value in zip(shown, values, strict=True):
            over = self._mean_of(name)
            room = width - label_wide - wide - 4 - (len(over) + 2 if over else 0)
            line = "" if self.plain_text else sparkline(self.curves[name], max(0, min(60, room)))
            yield Text.assemble(
                (f"{label:<{label_wide}}  ", "dim"), f"{value:<{wide}}  ", (line, "cyan"), (f"  {over}" if over else "", "dim")
            )
        if "episode_return" not in self.curves and self.metrics.get("episodes") == 0:
            yield Text("training return: no episode has ended yet", style="dim")

    def _mean_of(self, name: str) -> str:
        """The episodes that a return is averaged over."""
        if name == "episode_return" and (count := self.metrics.get("episodes")):
            return "1 episode" if count == 1 else f"mean of {min(LAST_EPISODES, int(count))} episodes"
        if name == "evaluation_return" and (count := self.metrics.get("evaluation_episodes")):
            return f"mean of {int(count)} episodes"
        return ""

    def _meter(self, width: int) -> Iterator[Text]:
        from rich.text import Text

        parts: list[str] = []
        for name, label, form in METER:
            part = f"{label} {self.shown(name, form)}"
            if self.metrics.get(name) is not None and len(" · ".join([*parts, part])) <= width:
                parts.append(part)
        if parts:
            yield Text(" · ".join(parts))

    def _sample(self) -> Iterator[Text]:
        from rich.text import Text

        if self.sample is not None:
            yield Text(self.sample_text(), style="dim")

    def sample_text(self) -> str:
        """One completion, as text."""
        assert self.sample is not None
        prompt, completion, reward = self.sample
        return f"sample, reward {number(reward)}: {one_line(prompt)[-30:]} | {one_line(completion)}"

    def change(self, name: str) -> str:
        """How much a curve has changed since its first value; nothing of a single value."""
        values = self.curves[name]
        if len(values) < 2:
            return ""
        return f" ({'+' if values[-1] >= values[0] else '-'}{number(abs(values[-1] - values[0]))})"

    def shown(self, name: str, form: str) -> str:
        """A number of the meter."""
        value = self.metrics.get(name)
        return "" if value is None else form.format(value)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.plain_text = not options.encoding.startswith("utf")
        yield from self.lines(options.max_width)


def number(value: float) -> str:
    """Four significant digits, thousands separated; – for what is not known."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1e7 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    digits = max(0, 3 - len(str(int(abs(value)))) + (abs(value) < 1) + 1)
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def one_line(text: str) -> str:
    """Foreign text in one line, without characters that steer a terminal."""
    return visible(text[:LONGEST_SAMPLE].replace("\r\n", "\n").replace("\n", "⏎").replace("\t", " "))


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in one line of text, from its least to its largest value; more values than columns are averaged.

    Args:
        values: finite numbers, oldest first.
        width: columns at most.
    """
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    edges = [len(values) * index // count for index in range(count + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, high = min(means), max(means)
    if high <= low:
        return LEVELS[0] * count
    return "".join(LEVELS[min(len(LEVELS) - 1, int(len(LEVELS) * (mean - low) / (high - low)))] for mean in means)


class Bar:
    """The live view on a terminal; elsewhere one plain line every ten seconds.

    Args:
        title: of what is shown.
        before: rows of the log from before this process, so that curves and changes begin where the run did.
    """

    def __init__(self, title: str, before: Iterable[dict[str, Any]] = ()) -> None:
        self.view = View(title)
        for row in before:
            self.view.take(row)
        self.last = self.last_sample = 0.0
        self.live: Any = None

    def start(self, done: int, total: int, unit: str) -> None:
        """Begin at ``done`` of ``total`` units."""
        self.view.done, self.view.total, self.view.unit = done, total, unit
        self.first, self.began = done, time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(self.view, console=Console(stderr=True), refresh_per_second=4)
            self.live.start()

    def update(self, done: int, metrics: dict[str, Any]) -> None:
        """Show the progress of the run."""
        view, now = self.view, time.monotonic()
        view.take(metrics)
        view.done, view.elapsed = min(done, view.total), now - self.began
        view.speed = (done - self.first) / max(view.elapsed, 1e-9)
        if self.live is None and now - self.last >= PLAIN_PERIOD:
            self.last = now
            print(view.plain(), file=sys.stderr, flush=True)

    def on_update(self, run: Run, metrics: dict[str, Any]) -> None:
        """Take a sample of the model's completions at intervals."""
        now, period = time.monotonic(), SAMPLE_PERIOD[self.live is None]
        if now - self.last_sample < period or not (rows := run.method.rollouts(1)):
            return
        self.last_sample = now
        chosen = rows[int(metrics["iteration"]) % len(rows)]
        prompt = chosen["prompt"]
        asked = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", ""))
        self.view.sample = asked, str(chosen["completion"]), float(chosen["reward"])
        if self.live is None:
            print(f"  {self.view.sample_text()[:ONE_LINE]}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a sentence above the view."""
        if self.live:
            self.live.console.print(visible(text), markup=False, highlight=False)
        else:
            print(visible(text), file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Leave the display as it stands."""
        if self.live:
            self.live.refresh()
            self.live.stop()
