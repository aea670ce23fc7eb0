"""The soak: ``python -m tests.soak`` trains for three days' worth of cheap updates and watches what must not grow.

Four kinds, each in a process of its own: on-policy control, control with a replay, a language model with a sandboxed reward, and small runs
one after the other (made, stopped, resumed, reported, compared in worker processes). Three days hold as many updates as there are with one
every ten seconds on policy, one a second from a replay, one a minute of a language model, and a run in every quarter of an hour.

After a warm-up (the first quarter of the samples) the process must be flat:

    memory        anonymous resident memory, freed pages given back: Theil and Sen's slope, over the updates measured, is at most 4 MiB of
                  noise plus 8 MiB in three days
    descriptors, threads, child processes
                  no more than one above the most of the first half
    log           no more bytes per update in the second half than 1.25 times those of the first
    checkpoints   at most two, and no larger than they were, but for 10 % and 64 KiB
    rollouts      at most 200 files
    other files   in the run, the place for temporary files and the cache: no more than they were, but for 64 KiB and one
                  file (what is noted of runs with code of their own is bounded by itself)

``--minutes`` stops each kind early; what was reached is judged alike and printed as a share of three days.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.errors import Interrupted
from rheostat.experiments.comparison import compare
from rheostat.reporting.report import write_report
from rheostat.training.rollout_files import FILES
from rheostat.training.run import Run
from rheostat.training.settings import Settings
from rheostat.training.settings_from_options import settings_for
from tests.border.models import build, sums, write_rows
from tests.tiny_control import small
from tests.training.test_run import StopAfter

DAY = 24 * 3600
SAMPLES = 200
"""Of a whole soak."""
WARM_UP = 0.25
"""Share of the samples."""
NOISE, GROWTH = 4 * 2**20, 8 * 2**20
"""Bytes of memory: what may seem to be growth, and what may grow in three days."""
SLACK = 64 * 2**10
"""Bytes of files."""
FREED_AT_ONCE = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Of the environment of the GNU C library, whose thresholds move otherwise."""
REWARD = "def digits(completions, **columns):\n    return [float(any(c.isdigit() for c in str(text))) for text in completions]\n"


@dataclass(frozen=True)
class Sample:
    """What a process holds after so many updates; sizes in bytes."""

    updates: int
    memory: int
    descriptors: int
    threads: int
    children: int
    log: int
    checkpoints: int
    checkpoint_bytes: int
    rollouts: int
    other: int
    other_bytes: int


class Spent(Exception):
    """The budget of updates or of time is spent."""


@dataclass
class Watch:
    """Takes samples of this process and of a folder; a callback of runs.

    Attributes:
        folder: all that is written lies in it.
        updates, seconds: after which it ends, whichever comes first.
        most: samples that are taken in either, evenly spread.
    """

    folder: Path
    updates: int
    seconds: float = np.inf
    most: int = SAMPLES
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)

    def on_update(self, run: Run, metrics: dict[str, Any]) -> None:
        """After a row of a run's log."""
        try:
            self.count(int(metrics["updates"]))
        except Spent:
            run.stop("the soak is over")

    def count(self, done: int) -> None:
        """So many updates are done.

        Raises:
            Spent: that is enough.
        """
        spent = max(done / self.updates, (time.monotonic() - self.began) / self.seconds)
        if spent >= len(self.samples) / self.most:
            self.samples.append(sample(self.folder, done))
        if spent >= 1:
            raise Spent


def sample(folder: Path, updates: int) -> Sample:
    """What this process holds now, and what lies in a folder of runs."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # of other C libraries
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}

    def total(*names: str) -> tuple[int, int]:
        """How many files lie in folders of these names, or have them, and their bytes."""
        found = [size for path, size in files.items() if set(path.relative_to(folder).parts) & set(names)]
        return len(found), sum(found)

    log, kept, saved = total("metrics.jsonl", "timings.jsonl"), total("rollouts"), total("checkpoints")
    noted, _ = total("begun")  # an empty file for every run with code of its own, at most 10,000 of them
    return Sample(
        updates=updates,
        memory=int(status["RssAnon"].split()[0]) * 1024,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=int(status["Threads"]),
        children=len(descendants(os.getpid())),
        log=log[1],
        checkpoints=len(list(folder.glob("**/checkpoints/*"))),
        checkpoint_bytes=saved[1],
        rollouts=kept[0],
        other=len(files) - log[0] - kept[0] - saved[0] - noted,
        other_bytes=sum(files.values()) - log[1] - kept[1] - saved[1],
    )


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            for child in map(int, thread.read_text().split()):
                found += [child, *descendants(child)]
    return found


# --- the four kinds -----------------------------------------------------------------------------------------------------------------------

FOREVER: dict[str, Any] = {"steps": 10**12, "evaluation_episodes": 0}
"""Budget of a run that the watch ends."""


def on_policy(folder: Path, watch: Watch, callbacks: Sequence[Any] = ()) -> None:
    """PPO on CartPole, evaluated on the way, with the best policy kept."""
    settings = small("ppo", checkpoint_every=64 * 50, evaluate_every=64 * 500, save_best=True, **FOREVER)
    Run.create(folder / "run", settings).train(callbacks=[*callbacks, watch]).close()


def replay(folder: Path, watch: Watch, callbacks: Sequence[Any] = ()) -> None:
    """DQN on CartPole from a small replay."""
    settings = small("dqn", update_to_data=1.0, checkpoint_every=2000, **FOREVER)
    Run.create(folder / "run", settings).train(callbacks=[*callbacks, watch]).close()


def language_settings(folder: Path, **options: Any) -> Settings:
    """GRPO on a random model, with a reward function in a file, which is sandboxed."""
    if not (folder / "model").exists():
        build(folder / "model")
        write_rows(folder / "rows.jsonl", sums())
        (folder / "reward.py").write_text(REWARD)
    return settings_for(
        "grpo",
        "prompts",
        model=str(folder / "model"),
        prompts=str(folder / "rows.jsonl"),
        rewards=("exact", f"{folder / 'reward.py'}:digits"),
        prompts_per_batch=2,
        group_size=2,
        max_new_tokens=6,
        environment_options={"validation_share": 0.2},
        **options,
    )


def language(folder: Path, watch: Watch, callbacks: Sequence[Any] = ()) -> None:
    """GRPO on a random model with a sandboxed reward, its rollouts kept."""
    settings = language_settings(folder, evaluate_every=100, checkpoint_every=20, **FOREVER)
    Run.create(folder / "run", settings).train(callbacks=[*callbacks, watch]).close()


def runs(folder: Path, watch: Watch, callbacks: Sequence[Any] = ()) -> None:
    """Small runs one after the other, each stopped, opened again, finished, reported and removed; every 24th is a comparison."""
    made = 0
    with contextlib.suppress(Spent):
        while True:
            _one_run(folder, made, callbacks)
            made += 1
            watch.count(made)


def _one_run(folder: Path, number: int, callbacks: Sequence[Any]) -> None:
    """The small run of a number."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        directory = Path(place) / "run"
        if number % 24 == 23:
            options: dict[str, Any] = {"num_envs": 4, "batch_steps": 64, "minibatches": 2, "evaluation_episodes": 1}
            compare(["ppo", "a2c"], "CartPole-v1", seeds=1, steps=128, directory=directory, progress=False, jobs=2, **options)
            return
        if number % 12 == 11:
            settings = language_settings(folder, steps=2, evaluate_every=0, evaluation_episodes=0)
        else:
            settings = small(("ppo", "dqn", "a2c")[number % 3], steps=192, checkpoint_every=64, evaluation_episodes=1)
        run = Run.create(directory, settings)
        with contextlib.suppress(Interrupted):
            run.train(progress=StopAfter(1), callbacks=callbacks)
        run.close()
        again = Run.load(directory, to_continue=True)
        again.train(callbacks=callbacks).close() if not again.finished else again.close()
        write_report([directory], directory / "report.html")


@dataclass(frozen=True)
class Kind:
    """A kind of work."""

    work: Callable[[Path, Watch, Sequence[Any]], None]
    updates: int
    """In three days."""


KINDS = {
    "on-policy": Kind(on_policy, 3 * DAY // 10),
    "replay": Kind(replay, 3 * DAY),
    "language": Kind(language, 3 * DAY // 60),
    "runs": Kind(runs, 3 * DAY // 900),
}


def soak(name: str, watch: Watch, callbacks: Sequence[Any] = ()) -> list[Sample]:
    """Do the work of a kind in this process, with temporary files and cache inside of the folder.

    Args:
        name: of :data:`KINDS`.
        watch: takes the samples; its folder is empty.
        callbacks: further ones of its runs, called before the watch.
    """
    folder = watch.folder
    for place in ("temporary", "cache"):
        (folder / place).mkdir()
    before = {name: os.environ.get(name) for name in ("TMPDIR", "RHEOSTAT_CACHE")}
    os.environ |= {"TMPDIR": str(folder / "temporary"), "RHEOSTAT_CACHE": str(folder / "cache")}
    tempfile.tempdir = None  # is read from the environment again
    gc.freeze()  # what is there already is no garbage of the runs, and takes long to look through
    try:
        KINDS[name].work(folder, watch, callbacks)
    finally:
        gc.unfreeze()
        for variable, value in before.items():
            os.environ.pop(variable) if value is None else os.environ.update({variable: value})
        tempfile.tempdir = None
    return watch.samples


# --- the verdict --------------------------------------------------------------------------------------------------------------------------


def slope(samples: Sequence[Sample]) -> float:
    """Bytes of memory per update: the median of the slopes of all pairs (Theil 1950, Sen 1968)."""
    x = np.array([each.updates for each in samples], dtype=float)
    y = np.array([each.memory for each in samples], dtype=float)
    first, second = np.triu_indices(len(samples), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def halves(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The samples after the warm-up, in two halves that share one.

    Raises:
        ValueError: fewer than eight samples.
    """
    if len(samples) < 8:
        raise ValueError(f"{len(samples)} samples are too few to judge: give it more time.")
    warm = list(samples[int(WARM_UP * len(samples)) :])
    return warm[: len(warm) // 2 + 1], warm[len(warm) // 2 :]


def growth(name: str, samples: Sequence[Sample]) -> tuple[float, float]:
    """How much the memory grew by its slope over the updates after the warm-up, and how much it may have, in bytes."""
    early, late = halves(samples)
    warm = [*early, *late[1:]]
    span = warm[-1].updates - warm[0].updates
    return slope(warm) * span, NOISE + GROWTH * span / KINDS[name].updates


def per_update(samples: Sequence[Sample]) -> float:
    """Bytes of log per update."""
    return (samples[-1].log - samples[0].log) / (samples[-1].updates - samples[0].updates)


def faults(name: str, samples: Sequence[Sample]) -> list[str]:
    """What grew that must not, in sentences; none is what there should be."""
    early, late = halves(samples)
    found = []
    grown, most = growth(name, samples)
    if grown > most:
        found.append(f"memory grew by {grown / 2**20:.1f} MiB, and may by {most / 2**20:.1f}")

    def check(what: str, allowed: Callable[[int], float]) -> None:
        before, after = (max(getattr(each, what) for each in half) for half in (early, late))
        if after > allowed(before):
            found.append(f"{what.replace('_', ' ')}: {before:,} at most in the first half, {after:,} in the second")

    for what in ("descriptors", "threads", "children", "other"):
        check(what, lambda before: before + 1)
    check("checkpoint_bytes", lambda before: 1.1 * before + SLACK)
    check("other_bytes", lambda before: before + SLACK)
    check("checkpoints", lambda before: 2)
    check("rollouts", lambda before: FILES)
    if per_update(late) > 1.25 * max(1.0, per_update(early)):
        found.append(f"the log grew by {per_update(early):.0f} bytes per update in the first half and {per_update(late):.0f} in the second")
    return found


def lines_of(name: str, samples: Sequence[Sample], seconds: float) -> Iterable[str]:
    """What was measured, as text."""
    early, late = halves(samples)
    grown, most = growth(name, samples)
    last, days = samples[-1], 3 * samples[-1].updates / KINDS[name].updates
    yield f"{name}: {last.updates:,} updates, {days:.2f} days' worth, in {seconds:.0f} s, {len(samples)} samples"
    yield (
        f"  memory {early[0].memory / 2**20:.1f} MiB after the warm-up, {last.memory / 2**20:.1f} at the end, "
        f"slope {slope([*early, *late[1:]]):+.1f} bytes per update: {grown / 2**20:+.2f} MiB (at most {most / 2**20:.1f})"
    )
    for what in ("descriptors", "threads", "children", "checkpoints", "checkpoint_bytes", "rollouts", "other", "other_bytes"):
        first, second = (max(getattr(each, what) for each in half) for half in (early, late))
        yield f"  {what.replace('_', ' ')}: {first:,} and {second:,}"
    yield f"  log: {per_update(early):.0f} and {per_update(late):.0f} bytes per update"
    yield from (f"  FAULT: {text}" for text in faults(name, samples))


# --- all of them --------------------------------------------------------------------------------------------------------------------------


def start(name: str, folder: Path, updates: int, minutes: float) -> subprocess.Popen[str]:
    """One kind in a process of its own, which prints its samples."""
    words = ["--inside", str(folder), "--kinds", name, "--updates", str(updates), "--minutes", str(minutes)]
    environment = os.environ | FREED_AT_ONCE | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([sys.executable, "-m", "tests.soak", *words], stdout=subprocess.PIPE, text=True, env=environment)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--updates", type=int, default=0, help="of every kind; by default three days' worth")
    parser.add_argument("--minutes", type=float, default=np.inf, help="that every kind may take; they run side by side")
    parser.add_argument("--inside", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside is not None:
        watch = Watch(given.inside, given.updates, 60 * given.minutes)
        print(json.dumps([dataclasses.astuple(each) for each in soak(given.kinds[0], watch)]))
        return
    wrong = False
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        began, started = time.monotonic(), {}
        for name in given.kinds:
            (folder := Path(place) / name).mkdir()
            started[name] = start(name, folder, given.updates or KINDS[name].updates, given.minutes)
            stack.callback(started[name].kill)
        for name, process in started.items():
            told, _ = process.communicate()
            if process.returncode:
                sys.exit(f"{name} ended with {process.returncode}")
            samples = [Sample(*each) for each in json.loads(told.splitlines()[-1])]
            print("\n".join(lines_of(name, samples, time.monotonic() - began)), flush=True)
            wrong = wrong or bool(faults(name, samples))
    sys.exit(wrong)


if __name__ == "__main__":
    main()
