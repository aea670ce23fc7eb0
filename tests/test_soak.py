"""A long run keeps memory, descriptors, threads, processes and disk flat, and the soak notices what does not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rheostat.training.run import Run
from tests.soak import KINDS, Watch, faults, lines_of, soak

UPDATES = {"on-policy": 80, "replay": 160, "runs": 9}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "runs" else ()) for kind in UPDATES])
def test_nothing_grows(kind: str, tmp_path: Path) -> None:
    samples = soak(kind, Watch(tmp_path, UPDATES[kind], most=12))
    assert samples[-1].updates >= UPDATES[kind] and len(samples) >= 8
    assert faults(kind, samples) == [], "\n".join(lines_of(kind, samples, 0.0))


class Leak:
    """A callback that keeps something of every update."""

    def __init__(self, leak: Callable[[Run], Any]) -> None:
        self.leak, self.kept = leak, []  # type: ignore[var-annotated]

    def on_update(self, run: Run, metrics: dict[str, Any]) -> None:
        self.kept.append(self.leak(run))


def thread(run: Run) -> threading.Event:
    end = threading.Event()
    threading.Thread(target=end.wait, daemon=True).start()
    return end


def saved(run: Run) -> None:
    folder = run.directory / "checkpoints" / f"old-{run.method.updates}"
    folder.mkdir()
    (folder / "state").write_bytes(b"x" * 4096)


def sample_of(run: Run) -> None:
    (run.directory / "rollouts").mkdir(exist_ok=True)
    for number in range(6):
        (run.directory / "rollouts" / f"{run.method.updates}-{number}").touch()


def row(run: Run) -> None:
    with (run.directory / "timings.jsonl").open("a") as file:
        file.write("x" * 200 * run.method.updates + "\n")


LEAKS: dict[str, Callable[[Run], Any]] = {
    "memory": lambda run: bytearray(os.urandom(2**19)),
    "descriptors": lambda run: open(os.devnull),  # noqa: SIM115
    "threads": thread,
    "children": lambda run: subprocess.Popen(["cat"], stdin=subprocess.PIPE),
    "other": lambda run: tempfile.mkstemp()[1],
    "checkpoints": saved,
    "rollouts": sample_of,
    "the log": row,
}


@pytest.fixture
def leaking() -> Iterator[Callable[[str], Leak]]:
    made: list[Leak] = []

    def make(what: str) -> Leak:
        made.append(Leak(LEAKS[what]))
        return made[-1]

    yield make
    for kept in made[0].kept:
        if isinstance(kept, threading.Event):
            kept.set()
        elif isinstance(kept, subprocess.Popen):
            kept.communicate()
        elif hasattr(kept, "close"):
            kept.close()


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_is_noticed(what: str, leaking: Callable[[str], Leak], tmp_path: Path) -> None:
    samples = soak("on-policy", Watch(tmp_path, 40, most=12), [leaking(what)])
    found = faults("on-policy", samples)
    assert any(text.startswith(what) for text in found), found


def test_too_few_samples_are_not_judged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="samples are too few"):
        faults("on-policy", soak("on-policy", Watch(tmp_path, 3, most=3)))


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    """All four, each in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "tests.soak", "--updates", "24"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{kind}: 24 updates" in done.stdout for kind in KINDS) and "FAULT" not in done.stdout
