"""The runs of a folder, read from their small files alone: state, progress, result.

| state | meaning |
|---|---|
| running | a process holds the lock of the run |
| stopped | no process writes it, and its budget is not spent: ``rheostat resume`` continues it |
| finished | its budget is spent |
| damaged | a file has changed since the run wrote it, or cannot be read |
| unknown | a process of another machine holds the lock, and this machine cannot tell whether it is alive |
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rheostat.analysis.metrics import FINALS, HEADLINES
from rheostat.errors import RheostatError
from rheostat.locks import read_owner
from rheostat.training.logs import faults, read_jsonl
from rheostat.training.run_directory import LOCK

State = Literal["running", "stopped", "finished", "damaged", "unknown"]
WRITTEN = ("config.json", "metrics.jsonl", "timings.jsonl", "summary.json")
"""Files whose times give the last change of a run."""
COMPARISON, TASKS, SEARCH, RECIPE = "compare.json", "tasks.json", "tune.json", "recipe.json"


@dataclass(frozen=True)
class Listed:
    """One line of the list: a run, or a comparison (or sweep) with its runs."""

    directory: Path
    name: str
    """Path of its directory, relative to the listed folder."""
    kind: Literal["run", "comparison"]
    state: State
    method: str | None = None
    task: str | None = None
    seed: int | None = None
    done: int = 0
    """Steps of the budget; of a comparison, runs that are finished."""
    total: int = 0
    metric: str | None = None
    """The kind of result: the final evaluation, else the newest measurement, else the newest training return or reward."""
    result: float | None = None
    before: float | None = None
    """The first measurement of the same metric; None where there was none before the result."""
    written: float = 0.0
    """When it was written last, in seconds since 1970."""
    remark: str = ""
    """A sentence on its faults, or on the process that writes it."""

    @property
    def change(self) -> float | None:
        """The result less the first measurement."""
        return None if self.result is None or self.before is None else self.result - self.before

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"directory": str(self.directory), "change": self.change}


def list_runs(folder: str | Path) -> list[Listed]:
    """Runs and comparisons in a folder, the newest first. Of a run or a comparison itself, its own runs.

    Raises:
        RheostatError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RheostatError(f"There is no folder {folder}: name one that holds runs (by default `runs`, or what $RHEOSTAT_RUNS says).")
    if (folder / "config.json").exists():
        return [look_at(folder, folder.name)]
    found = list(_inside(folder)) if (folder / COMPARISON).exists() else list(_below(folder))
    return sorted(found, key=lambda each: -each.written)


def _below(folder: Path) -> Iterator[Listed]:
    for child in folder.iterdir():
        if (child / "config.json").exists():
            yield look_at(child, child.name)
        elif (child / COMPARISON).exists():
            yield _comparison(child, child.name)
        elif (child / TASKS).exists():
            yield from (_comparison(one, f"{child.name}/{one.name}") for one in sorted(child.iterdir()) if (one / COMPARISON).exists())
        elif (child / SEARCH).exists() or (child / RECIPE).exists():
            yield from (look_at(run, f"{child.name}/{run.name}") for run in sorted(child.iterdir()) if (run / "config.json").exists())


def _inside(folder: Path) -> Iterator[Listed]:
    """The runs of a comparison."""
    return (look_at(child, child.name) for child in folder.iterdir() if (child / "config.json").exists())


def _comparison(folder: Path, name: str) -> Listed:
    runs = list(_inside(folder))
    written = max([(folder / COMPARISON).stat().st_mtime, *(run.written for run in runs)])
    try:
        manifest = json.loads((folder / COMPARISON).read_text())
        names, task, methods = list(manifest["cells"]), str(manifest["task"]), ", ".join(map(str, manifest["methods"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Listed(folder, name, "comparison", "damaged", written=written, remark=f"{folder / COMPARISON} is damaged: {error!r}.")
    counts = Counter(run.state for run in runs)
    held, remark = _held(folder)
    finished = counts["finished"]
    order: tuple[State, ...] = ("damaged", "running", "unknown")
    state = next((state for state in order if counts[state]), held or ("finished" if finished >= len(names) else "stopped"))
    remark = next((run.remark for run in runs if run.state == "damaged"), remark)
    return Listed(folder, name, "comparison", state, methods, task, None, finished, len(names), written=written, remark=remark)


def look_at(directory: Path, name: str) -> Listed:
    """One run; its faults become its state and remark, never an error."""
    written = max((path.stat().st_mtime for path in (directory / file for file in WRITTEN) if path.exists()), default=0.0)

    def damaged(remark: str, **known: Any) -> Listed:
        return Listed(directory, name, "run", "damaged", written=written, remark=remark, **known)

    try:
        settings = json.loads((directory / "config.json").read_text())["settings"]
        known: dict[str, Any] = {"method": str(settings["method"]), "task": str(settings["task"]), "seed": int(settings["seed"])}
        known["total"] = int(settings["steps"]) + int(settings.get("online_steps", 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return damaged(f"{directory / 'config.json'} is damaged: {error!r}.")
    try:
        rows = read_jsonl(directory / "metrics.jsonl")
        summary = json.loads(path.read_text()) if (path := directory / "summary.json").exists() else {}
    except (RheostatError, ValueError) as error:
        return damaged(str(error), **known)
    known |= _result(rows, summary)
    wrong, _ = faults(directory)
    held, remark = _held(directory)
    if wrong:
        return damaged(wrong[0], **known)
    return Listed(directory, name, "run", held or ("finished" if summary else "stopped"), written=written, remark=remark, **known)


def _result(rows: Sequence[dict[str, Any]], summary: dict[str, Any]) -> dict[str, Any]:
    """The progress and result of a run; the first measurement is the first one of the log, before the result."""
    found: dict[str, Any] = {"done": max((int(row.get("steps", 0)) for row in [*rows[-1:], summary]), default=0)}
    key = next((key for key in FINALS if key in summary), None)
    key = key or next((key for key in HEADLINES if any(_number(row.get(key)) for row in rows)), None)
    if key is None:
        return found
    measured = [row[key] for row in rows if _number(row.get(key))]
    found |= {"metric": key, "result": summary.get(key, measured[-1] if measured else None)}
    if key in FINALS and measured and (key in summary or len(measured) > 1):
        found["before"] = measured[0]
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _held(directory: Path) -> tuple[Literal["running", "unknown"] | None, str]:
    """Whether a process holds the lock of a directory, and a sentence that names it."""
    owner = read_owner(directory / LOCK)
    if owner is None or owner.copied(directory / LOCK) or owner.gone():
        return None, ""
    if owner.gone() is None:
        return "unknown", f"Process {owner.pid} of the machine {owner.host} holds {directory / LOCK}."
    return "running", f"Process {owner.pid} writes it."
