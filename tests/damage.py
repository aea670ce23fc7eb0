"""The damage harness: ``python -m tests.damage --mutations 1000 --seed 0``.

Mutates one file of a run at a time (cuts, flipped bits, deleted and swapped lines and files, wrong JSON types, NaN, huge numbers, lone
surrogates), then either resumes the run or reads it as a report does. What comes out is one of four: the same numbers, a sentence (a
refusal, or a fault that readers name), other numbers without a word (``silent``), or an exception that is no sentence (``traceback``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.analysis.records import group_arms, read_record
from rheostat.analysis.summaries import summarise
from rheostat.errors import Interrupted, RheostatError
from rheostat.training.run import Run
from tests.crash import differences
from tests.tiny_control import small
from tests.training.test_run import StopAfter

SKIPPED = ("lock.json", "curves.png", "report.html")
STEPS = 384


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))] if data else b"{"


def flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return b"\x00"
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


def drop_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:place] + lines[place + 1 :]) if lines and (place := draw.randrange(len(lines))) >= 0 else b"x"


def swap_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        a, b = draw.sample(range(len(lines)), 2)
        lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def other_value(value: bytes) -> Callable[[bytes, random.Random], bytes]:
    """A number of the text becomes something else."""

    def mutate(data: bytes, draw: random.Random) -> bytes:
        found = list(re.finditer(rb"(?<=: )-?\d[\d.e+-]*", data))
        if not found:
            return data + value
        place = draw.choice(found)
        return data[: place.start()] + value + data[place.end() :]

    return mutate


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": cut,
    "flipped bit": flip,
    "line deleted": drop_line,
    "lines swapped": swap_lines,
    "emptied": lambda data, draw: b"",
    "list for an object": lambda data, draw: b"[1, 2]",
    "text": other_value(b'"text"'),
    "null": other_value(b"null"),
    "NaN": other_value(b"NaN"),
    "huge": other_value(b"1e999"),
    "long": other_value(b"9" * 400),
    "negative": other_value(b"-1"),
    "surrogate": other_value(b'"\\ud800"'),
    "object": other_value(b"{}"),
}


@dataclass(frozen=True)
class Runs:
    """What is damaged: a run that was stopped, and one that is finished."""

    stopped: Path
    finished: Path


def make_runs(folder: Path) -> Runs:
    """Both, as small as they can be."""
    settings = small("ppo", steps=STEPS, checkpoint_every=128, evaluation_episodes=1)
    halted = Run.create(folder / "stopped", settings)
    with contextlib.suppress(Interrupted):
        halted.train(progress=StopAfter(5))
    Run.create(folder / "finished", settings).train()
    return Runs(halted.directory, folder / "finished")


def damage(directory: Path, draw: random.Random) -> str:
    """Mutate one file; returns which and how."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name not in SKIPPED)
    path = draw.choice(files)
    kind = draw.choice([*MUTATIONS, "file deleted", "files swapped"])
    if kind == "file deleted":
        path.unlink()
    elif kind == "files swapped":
        other = draw.choice([each for each in files if each != path])
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)
    else:
        path.write_bytes(MUTATIONS[kind](path.read_bytes(), draw))
    return f"{path.relative_to(directory)}: {kind}"


def resumed(directory: Path, runs: Runs) -> str:
    """What resuming gives."""
    run = Run.load(directory, to_continue=True)
    run.train()
    said = any("now, and was" in sentence for sentence in run.warnings)
    same = not differences(runs.finished, directory) and without_seconds(run.summary) == without_seconds(Run.load(runs.finished).summary)
    return "same" if same else "sentence" if said else "silent"


def without_seconds(summary: dict[str, Any]) -> dict[str, Any]:
    """A final evaluation without what differs every time."""
    return {name: value for name, value in summary.items() if name != "seconds"}


def numbers_of(directory: Path) -> tuple[Any, bool]:
    """What a report shows of a run but its speed, and whether it says that something is wrong."""
    record = read_record(directory)
    rows, notes = summarise(group_arms([record])[record.task])
    columns = {name: values.tolist() for name, values in record.columns.items() if name != "seconds"}
    shown = [{name: value for name, value in each.to_json().items() if "second" not in name and name != "speed"} for each in rows]
    text = json.dumps([columns, shown, without_seconds(record.summary), record.settings, record.versions], sort_keys=True, default=float)
    return text, bool(notes or record.faults)


def read(directory: Path, runs: Runs) -> str:
    """What reading gives."""
    text, said = numbers_of(directory)
    return "sentence" if said else ("same" if text == numbers_of(runs.finished)[0] else "silent")


def try_one(runs: Runs, seed: int) -> tuple[str, str, str]:
    """One mutation: what was done, what came of it (``same``, ``sentence``, ``silent`` or ``traceback``), and the end of a traceback."""
    draw = random.Random(seed)
    scene, source = draw.choice([(resumed, runs.stopped), (read, runs.finished)])
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(shutil.copytree(source, Path(folder) / "run"))
        done = f"{scene.__name__} after {damage(directory, draw)}"
        try:
            return done, scene(directory, runs), ""
        except RheostatError as error:
            return done, "sentence" if "\n" not in str(error) else "traceback", str(error)
        except Exception:
            return done, "traceback", "".join(traceback.format_exc().splitlines(keepends=True)[-3:])


def damages(mutations: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How often each outcome came, and the mutations that must not be."""
    counts: Counter[str] = Counter()
    bad = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        runs = make_runs(Path(folder))
        for number in range(mutations):
            done, outcome, why = try_one(runs, 1_000_003 * seed + number)
            counts[outcome] += 1
            if outcome in ("silent", "traceback"):
                bad.append(f"{outcome}: {done} (number {number})\n{why}")
    return counts, bad


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts, bad = damages(given.mutations, given.seed)
    print("\n".join(bad))
    print(", ".join(f"{outcome}: {counts[outcome]}" for outcome in ("same", "sentence", "silent", "traceback")))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
