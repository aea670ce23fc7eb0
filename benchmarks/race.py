"""Libraries side by side: each side is a process of its own, all are started and warmed up, then they take turns.

A row holds what a side did per second of the processor (all threads and worker processes together; other jobs disturb it least) and per
second of the clock, on how many threads and by which matrix products, how much of the measured ceiling that is, and what it took to a
stated return. A side whose packages are missing, or that fails, has a row that says so, and the rest goes on.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from benchmarks import checkouts
from benchmarks.rows import machine, median, table


class Trainer(Protocol):
    """What a side trains."""

    def advance(self, steps: int) -> int:
        """Train for at least so many steps; returns how many they were."""
        ...

    def episode_return(self) -> float:
        """Mean return of the last 100 episodes; NaN before the first has ended."""
        ...


@dataclass(frozen=True)
class Side:
    """One way of running one library."""

    name: str
    package: str
    """Whose version is shown."""
    make: Callable[..., Trainer]
    """Of the work's options; called in the side's process."""
    threads: int = 1
    modules: tuple[str, ...] = ()
    """What has to be installed."""
    variables: dict[str, str] = field(default_factory=dict)
    """Of the environment of its process."""
    script: str = ""
    """A file in the folder of checkouts that it runs; see :mod:`benchmarks.checkouts`."""

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty where it can."""
        absent = [name for name in self.modules if find_spec(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed"
        return checkouts.why_missing(self.script) if self.script else ""

    @property
    def version(self) -> str:
        """Of its package, or the commit of its checkout; empty where it is missing."""
        return checkouts.commit(self.script) if self.script else installed(self.package)


@dataclass(frozen=True)
class Work:
    """What all sides do."""

    name: str
    unit: str
    options: dict[str, Any]
    """For :attr:`Side.make`."""
    turn: int
    """Steps of a turn."""
    warm_up: int
    target: float = math.nan
    """The stated return; NaN states none."""
    limit: int = 0
    """Steps after which a side gives the return up."""


# --- a side's process ---------------------------------------------------------------------------------------------------------------------


def serve(pipe: Connection, side: Side, work: Work) -> None:
    """What a side's process does."""
    try:
        answer_all(pipe, side, work)
    finally:
        os._exit(0)  # worker threads included


def answer_all(pipe: Connection, side: Side, work: Work) -> None:
    """Train as much as the pipe says, and answer what it cost, until it says None; an error is an answer, too."""
    try:
        limit_threads(side.threads)
        trainer = side.make(**work.options)
        while (asked := pipe.recv()) is not None:
            steps, target = asked
            found = timed(trainer, steps) if target is None else reach(trainer, steps, target, work.turn)
            pipe.send(found | {"peak_mb": peak_mb(), "blas": blas()})
    except BaseException as error:
        pipe.send({"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"})
    finally:
        pipe.close()


def timed(trainer: Trainer, steps: int) -> dict[str, Any]:
    """Train; returns steps and seconds."""
    began = time.perf_counter(), processor_seconds()
    done = trainer.advance(steps)
    return {"steps": done, "wall": time.perf_counter() - began[0], "processor": processor_seconds() - began[1]}


def reach(trainer: Trainer, limit: int, target: float, at_once: int) -> dict[str, Any]:
    """Train until the return is the target, or the limit is passed; looking at the return costs no seconds."""
    total: dict[str, Any] = {"steps": 0, "wall": 0.0, "processor": 0.0, "reached": False}
    while total["steps"] < limit and not total["reached"]:
        for name, value in timed(trainer, at_once).items():
            total[name] += value
        total["reached"] = trainer.episode_return() >= target
    return total


def limit_threads(threads: int) -> None:
    """Of PyTorch and of the BLAS that is loaded; JAX takes its number from the environment."""
    if "torch" in sys.modules or find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
    if find_spec("threadpoolctl") is not None:
        import scipy.linalg  # noqa: F401  (loads the second BLAS)
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads, user_api="blas")


def processor_seconds() -> float:
    """Of this process and of its living children, all threads together."""
    children = 0.0
    tick = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    for child in multiprocessing.active_children():
        try:
            words = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children += (int(words[11]) + int(words[12])) / tick
    return time.process_time() + children


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def blas() -> str:
    """Who makes the matrix products in this process, and with which kernel."""
    found = []
    if find_spec("threadpoolctl") is not None:
        import threadpoolctl

        for each in threadpoolctl.threadpool_info():
            if each["user_api"] == "blas":
                found.append(f"{each['internal_api']} {each.get('architecture') or each['version']} x{each['num_threads']}")
    if "torch" in sys.modules:
        import torch

        products = "MKL" if torch.backends.mkl.is_available() else "its own BLAS"
        found.append(f"PyTorch's {products} ({torch.backends.cpu.get_cpu_capability()}) x{torch.get_num_threads()}")
    if "jax" in sys.modules:
        found.append("XLA")
    return ", ".join(dict.fromkeys(found))


# --- taking turns -------------------------------------------------------------------------------------------------------------------------


def race(work: Work, sides: Sequence[Side], *, turns: int, to_return: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row per side.

    Args:
        work: what they do.
        sides: who does it; the first one is ours, and ratios are to it.
        turns: of each side.
        to_return: also measure what it takes to the stated return, one side after the other, from the beginning.
        say: prints progress.
    """
    rows = [{"work": work.name, "side": side.name, "version": side.version, "unit": work.unit} | work.options for side in sides]
    for row, side in zip(rows, sides, strict=True):
        if side.missing:
            row["missing"] = side.missing
    running = {index: started(side, work) for index, side in enumerate(sides) if not side.missing}
    answers: dict[int, list[dict[str, Any]]] = {index: [] for index in running}
    for turn in range(turns + 1):
        order = list(running) if turn % 2 else list(running)[::-1]
        for index in order:
            found = answer(running[index], (work.turn if turn else work.warm_up, None))
            if "failed" in found:
                rows[index]["missing"] = found["failed"]
                running.pop(index)
                say(f"  {sides[index].name}: {found['failed']}")
            elif turn:
                answers[index].append(found)
    for pipe in running.values():
        pipe.send(None)
    for index in running:
        rows[index] |= summarised(answers[index], sides[index].threads)
        say(f"  {sides[index].name}: {rows[index]['per_processor_second']:,.0f} {work.unit} per processor second")
        if to_return and not math.isnan(work.target):
            rows[index] |= seconds_to(work, sides[index])
    return rows


def started(side: Side, work: Work) -> Connection:
    """The pipe to a side's new process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with variables(side.variables | {"OMP_NUM_THREADS": str(side.threads), "OPENBLAS_NUM_THREADS": str(side.threads)}):
        context.Process(target=serve, args=(there, side, work)).start()
    there.close()
    return here


@contextmanager
def variables(new: dict[str, str]) -> Iterator[None]:
    """Inside, the environment has these variables, and no ``OPENBLAS_CORETYPE``, which would name a slower kernel."""
    before = dict(os.environ)
    os.environ.update(new)
    os.environ.pop("OPENBLAS_CORETYPE", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def answer(pipe: Connection, question: tuple[int, float | None]) -> dict[str, Any]:
    """What a side answers; a process that is gone has failed."""
    try:
        pipe.send(question)
        found: dict[str, Any] = pipe.recv()
        return found
    except (EOFError, OSError):
        return {"failed": "its process ended"}


def summarised(answers: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """Medians over turns."""
    per_processor = [each["steps"] / each["processor"] for each in answers]
    return {
        "threads": threads,
        "per_processor_second": median(per_processor),
        "per_second": median(each["steps"] / each["wall"] for each in answers),
        "turns": [round(value, 1) for value in per_processor],
        "peak_mb": round(max(each["peak_mb"] for each in answers), 1),
        "blas": answers[-1]["blas"],
    }


def seconds_to(work: Work, side: Side) -> dict[str, Any]:
    """What a fresh process of a side spends until the stated return, after its warm-up elsewhere; compiling is not left out."""
    pipe = started(side, work)
    found = answer(pipe, (work.limit, work.target))
    if "failed" in found:
        return {"to_return": found["failed"]}
    pipe.send(None)
    spent = {"processor_seconds": round(found["processor"], 2), "seconds": round(found["wall"], 2), "steps": found["steps"]}
    return {"to_return": {"target": work.target, "reached": found["reached"]} | spent}


def installed(package: str) -> str:
    """The version of a package; empty where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


# --- showing ------------------------------------------------------------------------------------------------------------------------------


def with_ceiling(rows: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one work, with the share of the ceiling that each reaches.

    Args:
        rows: see :func:`race`.
        names: sides that do a necessary part alone; these parts one after the other are the ceiling.
    """
    parts = {row["side"]: row["per_processor_second"] for row in rows if row["side"] in names and "per_processor_second" in row}
    if set(parts) != set(names):
        return rows
    ceiling = 1 / sum(1 / value for value in parts.values())
    for row in rows:
        if "per_processor_second" in row and row["side"] not in parts:
            row |= {"ceiling": round(ceiling, 1), "share_of_ceiling": round(row["per_processor_second"] / ceiling, 3)}
    return rows


def shown(rows: list[dict[str, Any]]) -> str:
    """The rows of one work as text; ratios are of our first row to each."""
    ours = rows[0].get("per_processor_second")
    lines = []
    for row in rows:
        name = f"{row['side']} {row['version']}".strip()
        if "missing" in row:
            lines.append([name, row["missing"], *[""] * 7])
            continue
        share = f"{row['share_of_ceiling']:.0%}" if "share_of_ceiling" in row else ""
        ratio = f"{ours / row['per_processor_second']:.2f}" if ours else ""
        numbers = [f"{row['per_processor_second']:,.0f}", f"{row['per_second']:,.0f}", ratio, share]
        lines.append([name, *numbers, str(row["threads"]), f"{row['peak_mb']:,.0f}", reached(row.get("to_return")), row["blas"]])
    header = ["side", "per CPU s", "per s", "ours / it", "of ceiling", "threads", "MB", "to the return", "products"]
    return f"{rows[0]['work']} ({rows[0]['unit']})\n{table(header, lines)}"


def reached(found: Any) -> str:
    """Seconds of the processor and steps to the stated return."""
    if not isinstance(found, dict):
        return found or ""
    if not found["reached"]:
        return f"not {found['target']:g} in {found['steps']:,}"
    return f"{found['processor_seconds']:.1f} CPU s, {found['steps']:,} to {found['target']:g}"


def dump(works: list[list[dict[str, Any]]]) -> str:
    """Everything as JSON, with the machine."""
    exported = {"OPENBLAS_CORETYPE": os.environ["OPENBLAS_CORETYPE"]} if "OPENBLAS_CORETYPE" in os.environ else {}
    return json.dumps({"machine": machine(), "exported_and_not_used": exported, "rows": [row for rows in works for row in rows]}, indent=1)
