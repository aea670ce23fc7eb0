"""The damage harness: ``python -m tests.damage --mutations 1000 --seed 0``.

Mutates one file at a time (cuts, flipped bits, deleted and swapped lines and files, wrong JSON types, NaN, huge numbers, lone surrogates)
of a run, which it then either resumes or reads as a report does, and of every other kind: data sets, cells and declarations of studies,
comparisons, kept rollouts, base models, teachers, configurations, prompts. What comes out is one of five: the same content, a sentence
(a refusal, or a fault that readers name), other content without a word (``silent``), an exception that is no sentence (``traceback``),
or, of files that people write by hand and that carry no digest, another file that is right (``another``).
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
import torch

from rheostat.analysis.records import group_arms, read_record
from rheostat.analysis.summaries import summarise
from rheostat.buffers.offline import OfflineData
from rheostat.errors import Interrupted, RheostatError
from rheostat.experiments.comparison import plan, read_manifest
from rheostat.experiments.studies import declaration, jobs, results
from rheostat.reporting.rollouts import read_rollouts
from rheostat.tasks.language import base_models, load_prompts
from rheostat.training import checkpoint
from rheostat.training.config_file import read_config, written_config
from rheostat.training.rollout_files import keep_rollouts
from rheostat.training.run import Run
from rheostat.training.settings_from_options import settings_for
from tests.border.models import build, sums, write_rows
from tests.crash import differences
from tests.experiments.studies.test_claims import RESULT
from tests.experiments.studies.toy import study as toy
from tests.tiny_control import gather, small
from tests.training.test_run import StopAfter

SKIPPED = ("lock.json", "curves.png", "report.html")
STEPS = 384
OUTCOMES = ("same", "sentence", "another", "silent", "traceback")


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


def another_value(data: bytes, draw: random.Random) -> bytes:
    """A value of a file of JSON becomes one of another type, wherever it stands; other files are cut."""
    try:
        whole = json.loads(data)
    except ValueError:
        return cut(data, draw)
    place = whole
    names: list[Any] = []  # the way to a value
    while isinstance(place, dict | list) and place and (not names or draw.random() < 0.7):
        names.append(draw.choice(list(place) if isinstance(place, dict) else range(len(place))))
        place = place[names[-1]]
    holder = whole
    for name in names[:-1]:
        holder = holder[name]
    if names:
        holder[names[-1]] = draw.choice(
            [value for value in ("text", None, [1, 2], {"a": 1}, -1, 1.5, True) if type(value) is not type(place)]
        )
    return json.dumps(whole).encode()


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
    "another value": another_value,
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
    files = sorted(each for each in directory.rglob("*") if each.is_file() and each.name not in SKIPPED and each.suffix != ".lock")
    path = draw.choice(files)
    kind = draw.choice([*MUTATIONS, "file deleted", "files swapped"])
    if kind == "file deleted":
        path.unlink()
    elif kind == "files swapped":
        other = draw.choice([each for each in files if each != path] or [path])
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


# --- files of other kinds -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is made, and what opening it gives."""

    make: Callable[[Path], Any]
    """Makes it in a folder."""
    open: Callable[[Path], Any]
    """What the folder holds, to be compared."""
    by_hand: bool = False
    """Whether people write it."""


def make_data(folder: Path) -> None:
    gather("CartPole-v1", 60).save(folder / "data-set")


def open_data(folder: Path) -> Any:
    data = OfflineData.load(folder / "data-set")
    return data.digest, data.facts, data.reference, str(data.observation_space), str(data.action_space), data.task


RECORD = {"label": "a cell", "function": "m:f", "arguments": {"seed": 1}, "seconds": 0.5, "commit": "c", "result": {"curve": [[1.0, 2.0]]}}


def make_study(folder: Path) -> None:
    (folder / "key").mkdir()
    jobs.store(folder / "key", RECORD)
    results.write_result(toy(), RESULT, folder)
    declaration.keep(folder, "damage", {"claims": {"a": {"margins": {"return": 0.5}, "words": "x"}}}, 8)


def open_study(folder: Path) -> Any:
    found = jobs.read(folder, "key"), declaration.read_record(folder), results.read_result(folder / "toy.json")
    if None in found:
        raise RheostatError("nothing is stored")  # it is computed, and declared, again
    return found


def make_comparison(folder: Path) -> None:
    plan(["ppo", "a2c"], "CartPole-v1", seeds=2, steps=1000, directory=folder / "compare")


def open_comparison(folder: Path) -> Any:
    found = read_manifest(folder / "compare")
    if found is None:
        raise RheostatError("there is no comparison")  # as :func:`load_comparison` says
    return found


def make_kept(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    for update in (1, 2):
        row = {"prompt": "1 + 1?", "completion": f"{update}", "reward": 0.5 * update, "valid": True, "tokens": ["1"], "advantage": [0.1]}
        keep_rollouts(folder, update, [row, row | {"completion": "\ud800"}])


def open_kept(folder: Path) -> Any:
    return [read_rollouts(folder, update) for update in (1, 2)]


def make_base(folder: Path) -> None:
    build(folder / "model")
    base_models._seal(folder / "model", {"digest": "0" * 16, "parameters": 12, "seconds": 1.0, "measured": {"accuracy": 0.5}})


def open_base(folder: Path) -> Any:
    wrong = base_models.fault_of(folder / "model")
    if wrong is not None:
        raise RheostatError(wrong)
    if not (folder / "model" / base_models.REPORT).is_file():
        raise RheostatError("no finished base model is there")  # which is built then
    files = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    return files | {base_models.REPORT: json.loads(files[base_models.REPORT])}  # whose lines may stand in any order


def make_teacher(folder: Path) -> None:
    checkpoint.write(folder, "teacher", {"policies": [{"weight": torch.arange(6.0), "evaluated": 3.5}], "random": 1.0})


def open_teacher(folder: Path) -> Any:
    return repr(checkpoint.read(folder / "teacher"))


def make_configurations(folder: Path) -> None:
    (folder / "ppo.toml").write_text(written_config("ppo", "CartPole-v1"))
    (folder / "ppo.yaml").write_text("seed: 3\nsteps: 1000\nlearning_rate: 0.001\n")
    (folder / "ppo.json").write_text(json.dumps({"seed": 3, "steps": 1000, "config": {"gae": {"gamma": 0.9}}}, indent=1))


def open_configurations(folder: Path) -> Any:
    found = []
    for name in ("ppo.toml", "ppo.yaml", "ppo.json"):
        read = read_config(folder / name, "ppo")
        settings = settings_for("ppo", read.task or "CartPole-v1", preset=read.preset, below=read.options, **read.general)
        found.append(settings.to_json())
    return found


def make_prompts(folder: Path) -> None:
    write_rows(folder / "rows.jsonl", [{"prompt": row["prompt"], "answer": row["answer"], "level": 3} for row in sums()])


def open_prompts(folder: Path) -> Any:
    return [(prompt.content, prompt.answer, dict(prompt.columns)) for _, prompt in load_prompts(folder / "rows.jsonl").named]


KINDS: dict[str, Kind] = {
    "data set": Kind(make_data, open_data),
    "study": Kind(make_study, open_study),
    "comparison": Kind(make_comparison, open_comparison),
    "rollouts": Kind(make_kept, open_kept),
    "base model": Kind(make_base, open_base),
    "teacher": Kind(make_teacher, open_teacher),
    "configuration": Kind(make_configurations, open_configurations, by_hand=True),
    "prompts": Kind(make_prompts, open_prompts, by_hand=True),
}


def try_file(name: str, whole: Path, seed: int) -> tuple[str, str, str]:
    """One mutation of a kind of file, as :func:`try_one`."""
    draw, kind = random.Random(seed), KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(shutil.copytree(whole, Path(folder) / "files"))
        done = f"{name} after {damage(place, draw)}"
        try:
            same = kind.open(place) == kind.open(whole)
            return done, "same" if same else "another" if kind.by_hand else "silent", ""
        except RheostatError as error:
            return done, "sentence" if "\n" not in str(error) else "traceback", str(error)
        except Exception:
            return done, "traceback", "".join(traceback.format_exc().splitlines(keepends=True)[-3:])


def damages_of_files(mutations: int, seed: int) -> tuple[Counter[str], list[str]]:
    """The same as :func:`damages`, of the other kinds of files in turn."""
    counts: Counter[str] = Counter()
    bad = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kind in KINDS.items():
            (Path(folder) / name).mkdir()
            kind.make(Path(folder) / name)
            kind.open(Path(folder) / name)  # what is whole opens
        for number in range(mutations):
            name = list(KINDS)[number % len(KINDS)]
            done, outcome, why = try_file(name, Path(folder) / name, 1_000_003 * seed + number)
            counts[outcome] += 1
            if outcome in ("silent", "traceback"):
                bad.append(f"{outcome}: {done} (number {number})\n{why}")
    return counts, bad


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
    parser.add_argument("--of", choices=("runs", "files", "both"), default="both", help="so many of each")
    given = parser.parse_args()
    wrong = []
    for name, damaging in (("runs", damages), ("files", damages_of_files)):
        if given.of in (name, "both"):
            counts, bad = damaging(given.mutations, given.seed)
            wrong += bad
            print("\n".join(bad))
            print(f"{name}: " + ", ".join(f"{outcome}: {counts[outcome]}" for outcome in OUTCOMES))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
