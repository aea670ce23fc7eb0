"""A method's result at several settings of the dial: the same method, task and budget, one number varied.

sweep-.../  a comparison's directory (its arms are the settings), and sweep.json, sweep.png, sweep.svg
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rheostat.analysis.records import Record
from rheostat.analysis.statistics import Interval, interval_of, iqm
from rheostat.errors import RheostatError, unknown
from rheostat.experiments.comparison import (
    Comparison,
    check_jobs,
    file_words,
    load_comparison,
    named_or_file,
    plan_arms,
    refuse_objects,
    run_grid,
)
from rheostat.experiments.grid import Display
from rheostat.json_text import dumps
from rheostat.learner.dial import Dial
from rheostat.training.settings import usual_steps
from rheostat.training.settings_from_options import free_directory

SWEPT = ("lag", "refresh_every", "replay_share", "expert_share", "updates_per_batch")
METER = {"ess": "meter/ess", "kl": "meter/kl_behaviour_k3", "clip fraction": "meter/clip_fraction"}


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        comparison: the runs; its arms are the settings of the dial, in order.
        method: its name.
        dial: the number that was varied.
        values: its settings.
    """

    comparison: Comparison
    method: str
    dial: str
    values: tuple[float, ...]

    @property
    def directory(self) -> Path:
        """Directory of the sweep."""
        return self.comparison.directory

    def rows(self) -> list[dict[str, Any]]:
        """One row per setting: final performance and mean over training with intervals over seeds, and the meter's means."""
        found = []
        for value, summary, arm in zip(self.values, self.comparison.summaries, self.comparison.arms, strict=True):
            row: dict[str, Any] = {f"dial.{self.dial}": value, "seeds": len(summary.seeds)}
            row |= {"final": _numbers(summary.final), "mean_over_training": _numbers(summary.mean_over_training)}
            row |= {name: _numbers(meter_of(arm.records, key)) for name, key in METER.items()}
            row["verdict"] = None if summary.verdict is None else summary.verdict.outcome
            row["next_look"] = None if summary.verdict is None else summary.verdict.next_look
            found.append(row)
        return found


def sweep(
    method: str,
    task: str | None = None,
    *,
    dial: Mapping[str, Sequence[float]],
    seeds: int = 3,
    steps: int | None = None,
    margin: float | None = None,
    jobs: int | None = None,
    directory: str | Path | None = None,
    progress: bool | Display = True,
    **options: Any,
) -> Sweep:
    """Train a method at several settings of one number of the dial, everything else equal.

    Args:
        method: its name.
        task: by name; None where ``prompts`` or ``preferences`` among the options name a file, which is the task then.
        dial: the number to vary and its settings, e.g. ``{"lag": [0, 1, 4, 16]}``; numbers with a single setting are held there.
        seeds: runs per setting; fewer than 8 are a pilot, and verdicts are given after 8, 12, 16 and 24.
        steps: budget of every run; None takes that of a single run, see ``rheostat train``.
        margin: difference of final values below which nothing matters; can be given only before the first run.
        jobs: runs at a time; None takes one per core.
        directory: of the sweep; one that holds an unfinished sweep of the same settings continues it.
        progress: show a live display.
        **options: settings of the run and of the method, the same everywhere.

    Raises:
        RheostatError: not exactly one number to vary, one that the method cannot honour, or as in
            :func:`rheostat.experiments.comparison.compare`.
        ComparisonInterrupted: a signal came; everything is saved.
    """
    check_jobs(jobs)
    for name in dial:
        if name not in Dial.__dataclass_fields__:
            raise unknown("setting of dial", name, Dial.__dataclass_fields__)
    turned = {name: list(dict.fromkeys(values)) for name, values in dial.items() if len(values) > 1}
    if len(turned) != 1:
        raise RheostatError(
            f"A sweep turns one number of the dial, and {len(turned)} have several settings: "
            f"give several to one of {', '.join('--dial.' + name.replace('_', '-') for name in SWEPT)}, for example --dial.lag 0 1 4 16."
        )
    refuse_objects(options, "A sweep")
    task = named_or_file(task, options)
    ((name, values),) = turned.items()
    held = {f"dial.{other}": settings[0] for other, settings in dial.items() if len(settings) == 1}
    where = Path(directory) if directory else free_directory(f"sweep-{method}-{task}-{name}")
    steps = usual_steps([method]) if steps is None else steps
    command = _command(method, task, dial, seeds, steps, margin, where, options)
    arms = {f"{name}-{value:g}": (method, {f"dial.{name}": value}) for value in values}
    runs = plan_arms(arms, task, seeds=seeds, steps=steps, margin=margin, where=where, command=command, **(options | held))
    failures = run_grid(runs, where, command, f"{method} {name}", jobs=jobs, progress=progress)
    found = Sweep(load_comparison(where, failures=failures), method, name, tuple(values))
    (where / "sweep.json").write_text(dumps(found.rows(), indent=2))
    return found


def meter_of(records: Sequence[Record], key: str) -> Interval | None:
    """Mean over training of a number of the meter, over seeds."""
    if not all(key in record.columns for record in records):
        return None
    values = [float(record.curve(key)[1].mean()) for record in records]
    return interval_of(values, iqm)


def _numbers(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    low, high = (x if math.isfinite(x) else None for x in (interval.low, interval.high))
    return {"estimate": interval.estimate, "low": low, "high": high}


def _command(
    method: str,
    task: str,
    dial: Mapping[str, Sequence[float]],
    seeds: int,
    steps: int,
    margin: float | None,
    where: Path,
    options: dict[str, Any],
) -> str:
    named, options = file_words(options)
    words = ["rheostat", "sweep", method, *(named or [task])]
    for name, values in dial.items():
        words += [f"--dial.{name.replace('_', '-')}", *(f"{value:g}" for value in values)]
    words += ["--seeds", str(seeds), "--steps", str(steps), "--directory", str(where)]
    words += [] if margin is None else ["--margin", f"{margin:g}"]
    if options:
        words.append("--options")
        words += [word for key, value in options.items() for word in (key, value if isinstance(value, str) else json.dumps(value))]
    return shlex.join(words)
