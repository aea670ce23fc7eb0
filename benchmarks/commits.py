"""One version of Rheostat beside another, in turn on one machine: ``python -m benchmarks.commits COMMIT [OTHER]``.

COMMIT (before) is checked out into a folder of its own; OTHER (after) too, or it is the working tree. Every row trains one method in two
processes, one per version, both started and warmed up, which then take turns: before, after, after, before, and so on. A number is seconds
of the processor (of all threads together), which other jobs disturb less than they disturb the clock; the ratio is the median of the
ratios within pairs, and stands beside their quartiles: where those lie on both sides of 1, nothing has been shown. Peak memory is the
largest resident size of another process per version, which trains as long as one turn and whose C library gives freed memory back at once:
what it would keep instead depends on the order of single allocations, and differs by a tenth between two runs of one version. One PyTorch
thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.rows import machine, table

HERE = Path(__file__).resolve().parent
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Of the environment: thresholds of the GNU C library, which no longer moves what is set; other C libraries ignore them."""
WORSE = 1.03
"""A ratio above which a row is worth a remark."""
TINY: dict[str, Any] = {"preset": "tiny", "steps": 10**7, "model": "chain-sum", "learning_rate": 1e-7, "evaluate_every": 0}
PPO: dict[str, Any] = {"num_envs": 64, "batch_steps": 2048, "minibatches": 8, "epochs": 10, "hidden": (64, 64), "steps": 10**9}
OFF_POLICY: dict[str, Any] = {"hidden": (256, 256), "batch_size": 256, "steps": 10**7}
ONLINE = OFF_POLICY | {"start_steps": 1000, "replay_capacity": 100_000}
OFFLINE = OFF_POLICY | {"normalise_states": False, "offline": "@data"}


@dataclass(frozen=True)
class Job:
    """A row: what is trained, and how much in a turn."""

    method: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)
    unit: str = "steps"
    """What is counted: ``steps`` or ``updates``. Offline, a turn of the loop makes 100 updates, and no fewer are counted."""
    turn: int = 2048
    warm_up: int = 2048


JOBS = {
    "PPO CartPole": Job("ppo", "CartPole-v1", PPO, turn=4 * 2048),
    "PPO HalfCheetah": Job("ppo", "HalfCheetah-v5", PPO, turn=2 * 2048),
    "SAC HalfCheetah": Job("sac", "HalfCheetah-v5", ONLINE, turn=150, warm_up=1050),
    "TD3 HalfCheetah": Job("td3", "HalfCheetah-v5", ONLINE, turn=250, warm_up=1050),
    "IQL": Job("iql", "HalfCheetah-v5", OFFLINE, "updates", 200, 100),
    "CQL": Job("cql", "HalfCheetah-v5", OFFLINE | {"batch_size": 64, "gap_threshold": 10.0, "penalty_actions": 10}, "updates", 100, 100),
    "GRPO tiny": Job("grpo", "chain-sum", TINY | {"prompts_per_batch": 16, "group_size": 16}, "updates", 3, 2),
    "SFT tiny": Job("sft", "chain-sum", TINY | {"prompts_per_batch": 128}, "updates", 8, 2),
}


class Side:
    """A process that trains one method of one version."""

    def __init__(self, root: Path, job: Job, options: dict[str, Any], environment: dict[str, str] | None = None) -> None:
        """Start it.

        Args:
            root: folder of the version.
            job: what to train.
            options: of the method, complete.
            environment: more variables of the process.
        """
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"} | (environment or {})
        command = [sys.executable, "-P", "-W", "ignore", str(HERE / "commit_side.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)
        self.send({"method": job.method, "task": job.task, "options": options, "unit": job.unit})

    def send(self, what: Any) -> None:
        """Tell it something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def train(self, amount: int) -> dict[str, float]:
        """So many units; returns ``seconds`` of the processor per unit and ``peak`` in MB.

        Raises:
            SystemExit: the process ended; what it said stands above.
        """
        self.send(amount)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"The version in {self.process.args!r} ended with {self.process.wait()}: see above.")
        found = json.loads(line)
        return {"seconds": found["seconds"] / found["done"], "peak": found["peak"]}

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.send(0)
            self.process.wait(60)


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, gone afterwards.

    Raises:
        SystemExit: no such commit.
    """
    repository = str(HERE.parent)
    with tempfile.TemporaryDirectory(prefix="rheostat-commit-") as folder:
        root = Path(folder) / "tree"
        added = subprocess.run(["git", "-C", repository, "worktree", "add", "-q", "--detach", str(root), commit], stderr=subprocess.PIPE)
        if added.returncode:
            raise SystemExit(f"{commit} cannot be checked out: {added.stderr.decode().strip()}")
        try:
            yield root
        finally:
            subprocess.run(["git", "-C", repository, "worktree", "remove", "--force", str(root)], check=True)


def compare(job: Job, roots: tuple[Path, Path], options: dict[str, Any], *, pairs: int, share: float = 1.0) -> dict[str, Any]:
    """A row.

    Args:
        job: what is trained.
        roots: folders of the version before and of the one after.
        options: of the method, complete.
        pairs: turns of both.
        share: of the job's turns.
    """
    sides: list[Side] = []
    seconds: tuple[list[float], list[float]] = ([], [])
    amount = max(1, round(share * job.turn))
    try:
        for root in roots:
            sides.append(Side(root, job, options))
            sides[-1].train(job.warm_up)
        for pair in range(pairs):
            for number in (0, 1) if pair % 2 == 0 else (1, 0):
                seconds[number].append(sides[number].train(amount)["seconds"])
    finally:
        for side in sides:
            side.close()
    before, after = (peak(root, job, options, amount) for root in roots)
    return summarised(seconds, (before, after))


def peak(root: Path, job: Job, options: dict[str, Any], amount: int) -> float:
    """The largest resident size in MB of a version that trains so much after its warm-up."""
    side = Side(root, job, options, FREED_AT_ONCE)
    try:
        return max(side.train(each)["peak"] for each in (job.warm_up, amount))
    finally:
        side.close()


def summarised(seconds: tuple[list[float], list[float]], peaks: tuple[float, float]) -> dict[str, Any]:
    """Medians of both sides, and the median and quartiles of the ratios within pairs."""
    ratios = sorted(after / before for before, after in zip(*seconds, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {
        "before": statistics.median(seconds[0]),
        "after": statistics.median(seconds[1]),
        "ratio": statistics.median(ratios),
        "quartiles": [low, high],
        "pairs": len(ratios),
        "peak_memory_mb": list(peaks),
        "memory_ratio": peaks[1] / peaks[0],
    }


def measure(roots: tuple[Path, Path], names: list[str], *, pairs: int, share: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All rows asked for."""
    rows = []
    for name in names:
        job = JOBS[name]
        found = compare(job, roots, completed(job.options), pairs=pairs, share=share)
        rows.append({"work": name, "unit": job.unit} | found)
        say(f"{name}: {found['ratio']:.3f} [{found['quartiles'][0]:.3f}, {found['quartiles'][1]:.3f}]")
    return rows


def completed(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the random data set in its place; both versions read the same."""
    if options.get("offline") != "@data":
        return options
    from benchmarks.off_policy import random_data

    return options | {"offline": random_data()[1]}


def shown(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    header = ["work", "ms before", "ms after", "per", "ratio", "quartiles", "MB before", "MB after", "MB ratio", ""]
    lines = [
        [
            row["work"],
            f"{1000 * row['before']:.4g}",
            f"{1000 * row['after']:.4g}",
            row["unit"].removesuffix("s"),
            f"{row['ratio']:.3f}",
            f"{row['quartiles'][0]:.3f} to {row['quartiles'][1]:.3f}",
            f"{row['peak_memory_mb'][0]:.0f}",
            f"{row['peak_memory_mb'][1]:.0f}",
            f"{row['memory_ratio']:.3f}",
            f"above {WORSE - 1:.0%}" if max(row["ratio"], row["memory_ratio"]) > WORSE else "",
        ]
        for row in rows
    ]
    return table(header, lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("before", help="the commit to compare with")
    parser.add_argument("after", nargs="?", help="another commit (default: the working tree)")
    parser.add_argument("--only", nargs="+", choices=JOBS, metavar="WORK", help=f"some rows only, out of: {', '.join(JOBS)}")
    parser.add_argument("--pairs", type=int, default=9, help="turns of both versions")
    parser.add_argument("--quick", action="store_true", help="a smoke run: two short pairs of every row")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    words = parser.parse_args()
    with checked_out(words.before) as before:
        if words.after is None:
            report((before, HERE.parent), words)
        else:
            with checked_out(words.after) as after:
                report((before, after), words)


def report(roots: tuple[Path, Path], words: argparse.Namespace) -> None:
    """Measure and print."""
    pairs, share = (2, 0.1) if words.quick else (words.pairs, 1.0)
    load = [os.getloadavg()[0]]
    say: Callable[[str], None] = (lambda line: None) if words.json else (lambda line: print(line, flush=True))
    rows = measure(roots, words.only or list(JOBS), pairs=pairs, share=share, say=say)
    load.append(os.getloadavg()[0])
    about = {
        "before": words.before,
        "after": words.after or "the working tree",
        "machine": machine(),
        "load_before_and_after": [round(x, 1) for x in load],
        "date": datetime.now(UTC).date().isoformat(),
    }
    if words.json:
        print(json.dumps({"rows": rows} | about, indent=1))
        return
    print(shown(rows))
    print(f"Machine: {about['machine']}; load before and after {load[0]:.1f} and {load[1]:.1f}.")


if __name__ == "__main__":
    main()
