"""The crash harness: ``python -m tests.crash METHOD TASK --kills 20``.

Runs a method once without interruption, then again while killing it at random moments (anywhere, and deliberately while a checkpoint is
being written) and resuming it, each time in a fresh process. Both must end bit for bit the same: parameters, optimiser, statistics, kept
data, random streams and the metrics file. Any method of the table can be given to it; words that it does not know go to ``rheostat train``:
``python -m tests.crash iql Pendulum-v1 --steps 2000 --after 2000 --offline DATA --online-steps 5000 --log-every 50``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from rheostat.training import checkpoint

PATIENCE = 900.0
"""Seconds after which a run that cannot be killed is left to finish; on a busy machine it takes minutes to start."""


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """One rheostat command in a process of its own."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "rheostat.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a command that must succeed."""
    _, errors = process.communicate()
    if process.returncode:
        raise AssertionError(f"{process.args} ended with {process.returncode}: {errors.decode()[-2000:]}")


def lines(directory: Path) -> int:
    """Rows logged so far."""
    path = directory / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def steps_logged(directory: Path) -> int:
    """Steps of the last whole row logged; 0 before the first."""
    path = directory / "metrics.jsonl"
    rows = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return int(json.loads(rows[-1])["steps"]) if rows else 0


def kill_somewhere(process: subprocess.Popen[bytes], directory: Path, chance: random.Random, after: int = 0) -> str | None:
    """Kill the process once it has got going and logged ``after`` steps; returns how, or None when it finished first."""
    how = chance.choice(["anywhere", "anywhere", "while writing", "terminate"])
    patience = chance.uniform(0.0, 1.0)
    began = time.monotonic()
    first = lines(directory)
    moving_since: float | None = None
    while process.poll() is None:
        if moving_since is None and lines(directory) != first and steps_logged(directory) >= after:
            moving_since = time.monotonic()
        writing = any((directory / "checkpoints").glob(".*.writing")) if directory.exists() else False
        started = moving_since is not None and time.monotonic() - moving_since > patience
        if (how == "while writing" and writing and moving_since is not None) or (how != "while writing" and started):
            os.killpg(process.pid, signal.SIGTERM if how == "terminate" else signal.SIGKILL)
            process.wait()
            return how
        if time.monotonic() - began > PATIENCE:
            break
        time.sleep(0.0005 if how == "while writing" else 0.01)
    finish(process)
    return None


def differences(reference: Path, other: Path) -> list[str]:
    """Everything that is not bit for bit the same in two finished runs."""
    found = []
    (name, a, _), (other_name, b, _) = (checkpoint.read_newest(directory / "checkpoints") for directory in (reference, other))
    if name != other_name:
        found.append(f"the newest checkpoints are {name} and {other_name}")
    skeleton_a, tensors_a = checkpoint.split_state(a)
    skeleton_b, tensors_b = checkpoint.split_state(b)
    if skeleton_a != skeleton_b:
        found.append("the states differ outside their tensors")
    for path in sorted(tensors_a.keys() | tensors_b.keys()):
        if path not in tensors_a or path not in tensors_b:
            found.append(f"{path} is in one run only")
        elif not torch.equal(tensors_a[path].nan_to_num(nan=-1.25), tensors_b[path].nan_to_num(nan=-1.25)):
            found.append(f"{path} differs")
    for file in ("metrics.jsonl",):
        if (reference / file).read_bytes() != (other / file).read_bytes():
            found.append(f"{file} differs")
    return found


def crash(
    method: str, task: str, *, kills: int, steps: int, options: list[str], after: int = 0, seed: int = 0, verbose: bool = False
) -> dict[str, int]:
    """Kill and resume until ``kills`` kills have happened (starting anew when a run ends first); returns how often each way was taken.

    Args:
        method, task, steps: of the run.
        kills: how many.
        options: more words for ``rheostat train``: a data set, hyperparameters.
        after: kill only when this many steps were logged: beyond ``steps``, only while a method that began with a data set acts.
        seed: of the moments.
        verbose: print every kill.

    Raises:
        AssertionError: a run that was killed ended differently from the one that was not.
    """
    chance = random.Random(seed)
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        train = ["train", method, task, "--steps", str(steps), "--evaluation-episodes", "1", *options]
        reference = Path(folder) / "reference"
        finish(start([*train, "--directory", str(reference)]))
        attempt = 0
        while sum(counts.values()) < kills:
            attempt += 1
            directory = Path(folder) / f"killed-{attempt}"
            process = start([*train, "--directory", str(directory)])
            while True:
                how = kill_somewhere(process, directory, chance, after) if sum(counts.values()) < kills else finish(process)
                if how is None:
                    break
                counts[how] = counts.get(how, 0) + 1
                if verbose:
                    print(f"killed {sum(counts.values())}/{kills}: {how}, {lines(directory)} rows logged")
                process = start(["resume", str(directory)])
            problems = differences(reference, directory)
            assert not problems, f"{method} on {task}, attempt {attempt}: " + "; ".join(problems[:20])
    return counts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("method")
    parser.add_argument("task")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--after", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    known, rest = parser.parse_known_args()
    rest = [word for word in rest if word != "--"]  # what follows goes to ``rheostat train``
    options = rest if any("--checkpoint-every" in word for word in rest) else [*rest, "--checkpoint-every", str(max(1, known.steps // 20))]
    counts = crash(
        known.method,
        known.task,
        kills=known.kills,
        steps=known.steps,
        options=options,
        after=known.after,
        seed=known.seed,
        verbose=True,
    )
    total = f"{sum(counts.values())} kills ({counts})"
    print(f"{known.method} on {known.task}: {total}, every resumed run ended bit for bit like the uninterrupted one.")


if __name__ == "__main__":
    main()
