"""Reading finished or running run directories as arrays, without loading their checkpoints, and grouping them into arms.

An *arm* is everything that has the same settings apart from the seed; its members are the seeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rheostat.analysis.metrics import AXES, COUNTERS, FINALS, HEADLINES
from rheostat.errors import RheostatError, unknown
from rheostat.json_text import NotJSON
from rheostat.json_text import read as read_json
from rheostat.methods import table
from rheostat.options import flatten, options_of
from rheostat.training.logs import faults, read_jsonl, read_timings
from rheostat.training.settings import CUSTOM, Settings, configure
from rheostat.training.version_0_1 import current_metric, current_summary

Array = NDArray[np.float64]
SHAPES: dict[str, type | UnionType] = {
    "method": str,
    "task": str,
    "seed": int,
    "steps": int,
    "online_steps": int,
    "model": str | None,
    "prompts": str | None,
    "environment_options": dict,
    "config": dict,
}
"""Settings that readers count on, and their types."""


@dataclass(frozen=True)
class Record:
    """One run as numbers.

    Attributes:
        directory: of the run.
        settings: of the run, as saved.
        versions: of the libraries that computed it.
        command: that started it.
        columns: every metric by today's name over the rows of ``metrics.jsonl``, ``[rows]`` float64, NaN where a row does not have it.
        nonfinite: how many *measured* values of a metric were NaN or infinite (they are NaN in ``columns`` too).
        summary: the final evaluation; empty while unfinished.
        faults: faults of its files, one sentence each: such a run enters no statistic.
        notes: further facts that a reader must know.
    """

    directory: Path
    settings: dict[str, Any]
    versions: dict[str, str]
    command: str
    columns: dict[str, Array]
    nonfinite: dict[str, int]
    summary: dict[str, Any]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.settings["method"])

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.settings["task"])

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.settings["seed"])

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return bool(self.summary)

    @property
    def steps(self) -> int:
        """Budget used so far."""
        steps = self.columns.get("steps")
        return 0 if steps is None or not len(steps) else int(steps[-1])

    @property
    def speed(self) -> float:
        """Steps per second of wall time; NaN where no time was kept."""
        seconds = self.columns.get("seconds")
        if seconds is None or not np.isfinite(seconds).any() or np.nanmax(seconds) <= 0:
            return math.nan
        last = int(np.nanargmax(seconds))
        return float(self.columns["steps"][last] / seconds[last])

    @property
    def metrics(self) -> list[str]:
        """Keys of the metrics."""
        return [key for key in self.columns if key not in COUNTERS]

    @property
    def headline(self) -> str | None:
        """The training curve that stands for performance."""
        return next((key for key in HEADLINES if key in self.columns), None)

    def axis(self, key: str) -> Array | None:
        """A budget over the rows, ``[rows]``; None where this run does not have it.

        Raises:
            RheostatError: unknown axis.
        """
        axis = next((axis for axis in AXES if axis.key == key), None)
        if axis is None:
            raise unknown("axis", key, (axis.key for axis in AXES))
        column = self.columns.get(key)
        if column is None:
            return None
        if axis.summed:
            return np.nancumsum(column)
        rows = np.arange(len(column))
        before = self.columns.get("iteration", rows + 1) == 0  # measured before the first update, when nothing was spent
        column = np.where(before & np.isnan(column), 0.0, column)
        known = np.isfinite(column)
        return np.interp(rows, rows[known], column[known]) if known.any() else None

    def curve(self, metric: str) -> tuple[NDArray[np.int64], Array]:
        """Rows that have a metric, and its values there.

        Args:
            metric: its key; studies that were declared with an old one still find it.

        Returns:
            Indices of the rows, int64, and float64 values, ``[rows that have it]`` each.

        Raises:
            RheostatError: no row has it.
        """
        metric = current_metric(metric)
        if metric not in self.columns:
            raise unknown(f"metric of {self.directory}", metric, self.metrics)
        values = self.columns[metric]
        rows = np.flatnonzero(np.isfinite(values))
        return rows, values[rows]

    @property
    def final_metric(self) -> str | None:
        """The metric of :attr:`final`: a key of the final evaluation, else the training curve (its last tenth)."""
        return next((key for key in FINALS if key in self.summary), self.headline)

    @property
    def final(self) -> float:
        """The final evaluation; without one, the mean of the last tenth of the training curve.

        Raises:
            RheostatError: there is neither, or it is not a finite number.
        """
        key = next((key for key in FINALS if key in self.summary), None)
        if key is not None:
            value = float(self.summary[key])
        elif self.headline is not None:
            rows, values = self.curve(self.headline)
            steps = self.columns["steps"][rows]
            if not len(values):
                raise RheostatError(f"{self.directory} has no finite {self.headline}: it cannot be compared.")
            key, value = self.headline, float(values[steps >= 0.9 * steps[-1]].mean())
        else:
            raise RheostatError(f"{self.directory} has measured no performance yet (none of {', '.join(HEADLINES)}): train it further.")
        if not math.isfinite(value):
            raise RheostatError(f"The {key} of {self.directory} is {value}: it cannot enter a statistic; look at that run.")
        return value


def read_record(directory: str | Path) -> Record:
    """Read one run directory.

    Raises:
        RheostatError: there is no run, or a file is damaged.
    """
    directory = Path(directory)
    config = _read_json(directory / "config.json")
    if config is None:
        raise RheostatError(f"There is no run in {directory}: it has no config.json.")
    settings = _settings(directory / "config.json", config)
    rows = read_jsonl(directory / "metrics.jsonl")
    columns, nonfinite = _columns(rows)
    if rows and "steps" not in columns:
        raise RheostatError(f"{directory / 'metrics.jsonl'} is damaged: none of its rows counts steps.")
    seconds = {row["iteration"]: row["seconds"] for row in read_timings(directory)}
    if seconds and "iteration" in columns:
        columns["seconds"] = np.array(
            [seconds.get(int(each), math.nan) if math.isfinite(each) else math.nan for each in columns["iteration"]]
        )
    wrong, notes = faults(directory)
    return Record(
        directory=directory,
        settings=settings,
        versions={str(key): str(value) for key, value in config.get("versions", {}).items()},
        command=str(config.get("command", "")),
        columns=columns,
        nonfinite=nonfinite,
        summary=current_summary(_read_json(directory / "summary.json") or {}),
        faults=(*wrong, *_holes(directory, columns)),
        notes=tuple(notes),
    )


def read_records(directories: Sequence[str | Path]) -> tuple[list[Record], list[str]]:
    """The runs that can be read, and a sentence about each that cannot.

    Raises:
        RheostatError: none of them can.
    """
    records, sentences = [], []
    for directory in directories:
        try:
            records.append(read_record(directory))
        except RheostatError as error:
            sentences.append(str(error))
    if sentences and not records:
        raise RheostatError(" ".join(sentences))
    return records, sentences


def _settings(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The settings in a configuration.

    Raises:
        RheostatError: one that readers need is missing or is no such value.
    """
    settings = config.get("settings")
    if not isinstance(settings, dict) or not {"method", "task", "seed"} <= set(settings):
        raise RheostatError(f"{path} is damaged: it does not name a method, a task and a seed.")
    for name, kind in SHAPES.items():
        if name in settings and (not isinstance(settings[name], kind) or isinstance(settings[name], bool)):
            raise RheostatError(f"{path} is damaged: the setting {name} is {settings[name]!r:.60}.")
    if not isinstance(config.get("versions", {}), dict):
        raise RheostatError(f"{path} is damaged: it does not name versions.")
    return settings


def _holes(directory: Path, columns: dict[str, Array]) -> list[str]:
    """Rows of the log that are missing or out of order, as a sentence."""
    for key in ("iteration", "steps"):
        values = columns.get(key)
        if values is not None and not (np.isfinite(values).all() and (np.diff(values) >= 0).all()):
            return [f"The rows of {directory / 'metrics.jsonl'} are out of order, or some have no {key}."]
    return []


def _columns(rows: list[dict[str, Any]]) -> tuple[dict[str, Array], dict[str, int]]:
    """Rows of numbers as columns; values that are no numbers are left out, non-finite ones counted."""
    columns: dict[str, Array] = {}
    nonfinite: dict[str, int] = {}
    for index, row in enumerate(rows):
        for key, value in ((current_metric(key), value) for key, value in row.items()):
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if key not in columns:
                columns[key] = np.full(len(rows), np.nan)
            if math.isfinite(value):
                columns[key][index] = value
            else:
                nonfinite[key] = nonfinite.get(key, 0) + 1
    return columns, nonfinite


def _read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is no file."""
    if not path.is_file():
        return None
    try:
        value: dict[str, Any] = read_json(path)
    except (OSError, NotJSON) as error:
        raise RheostatError(f"{path} is damaged: {error}.") from error
    return value


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Run directories among ``paths`` and directly inside them, each once, in order.

    Raises:
        RheostatError: a path that does not exist or holds no run.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise RheostatError(f"{path} does not exist: give directories of runs or of comparisons.")
        if (path / "config.json").is_file():
            inside = [path]
        else:
            children = [child for child in path.iterdir() if (child / "config.json").is_file()] if path.is_dir() else []
            order = _cell_order(path)
            inside = sorted(children, key=lambda child: (order.get(child.name, len(order)), _natural(child)))
        if not inside:
            raise RheostatError(f"There is no run in {path}: neither it nor a directory in it has a config.json.")
        for run in inside:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _cell_order(path: Path) -> dict[str, int]:
    """The order in which a comparison names its runs: its first method first, because the others are compared with it. Of a damaged one
    there is none (what shows its runs says that it is damaged)."""
    with contextlib.suppress(RheostatError, TypeError):
        return {str(name): index for index, name in enumerate((_read_json(path / "compare.json") or {}).get("cells", []))}
    return {}


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts s2 before s10."""
    digits = "".join(character if character.isdigit() else " " for character in path.name).split()
    words = "".join(" " if character.isdigit() else character for character in path.name)
    return [(0, words), *((int(number), "") for number in digits)]


@dataclass(frozen=True)
class Arm:
    """Runs that differ by their seed only."""

    label: str
    records: tuple[Record, ...]
    differences: dict[str, Any] = field(default_factory=dict)
    """Settings in which the arms of this task differ, with this arm's value (absent where it has no such setting)."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.records[0].method

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.records[0].task

    @property
    def seeds(self) -> list[int]:
        """Seeds, in order."""
        return [record.seed for record in self.records]

    @property
    def unit(self) -> str:
        """The unit of the budget: language methods choose in ``budget.unit``, control methods count environment steps, and gradient steps
        before them where they begin with a data set, or alone on worlds of preferences."""
        entry = table.METHODS.get(self.method)
        if entry is not None and entry.domain == "control" and getattr(entry.load(), "answers", False):
            return "gradient steps"
        if entry is not None and entry.domain == "control" and getattr(entry.load(), "uses_data", "no") == "first":
            return "gradient steps" + (", then environment steps" if self.records[0].settings.get("online_steps") else "")
        if entry is not None and entry.domain == "control":
            return "environment steps"
        if entry is not None and entry.domain == "compression":
            return "epochs"
        budget = self.records[0].settings.get("config", {}).get("budget", "steps")
        return str(budget["unit"] if isinstance(budget, dict) else budget)  # version 0.1 had one level

    def finals(self) -> Array:
        """Final performance of every seed, ``[seeds]``."""
        return np.array([record.final for record in self.records])


def flat_settings(record: Record) -> dict[str, Any]:
    """Settings of a run in one level, without the seed; environment options as ``environment.NAME``."""
    settings = {key: value for key, value in record.settings.items() if key not in ("seed", "config", "environment_options")}
    settings |= {f"environment.{key}": value for key, value in record.settings.get("environment_options", {}).items()}
    return settings | dict(flatten(record.settings.get("config", {})))


def group_arms(records: Sequence[Record]) -> dict[str, list[Arm]]:
    """Arms by task, in order of appearance.

    Raises:
        RheostatError: two directories hold the same settings and seed, which would count one result twice.
    """
    groups: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        key = json.dumps(flat_settings(record), sort_keys=True)
        members = groups.setdefault(record.task, {}).setdefault(key, [])
        twin = next((other for other in members if other.seed == record.seed), None)
        if twin is not None:
            raise RheostatError(
                f"{twin.directory} and {record.directory} have the same settings and the same seed {record.seed}: "
                "leave one out, or one result counts twice."
            )
        members.append(record)
    return {task: _label(list(arms.values())) for task, arms in groups.items()}


def _label(groups: list[list[Record]]) -> list[Arm]:
    """Name arms by their method and, where a method occurs twice, by the settings in which its arms differ."""
    flats = [flat_settings(group[0]) for group in groups]
    differing = differing_keys(flats)
    arms = []
    for group, mine in zip(groups, flats, strict=True):
        siblings = [other for other in flats if other["method"] == mine["method"]]
        own = differing_keys(siblings)
        detail = ", ".join(f"{key}={mine[key]}" for key in own if key in mine)
        label = mine["method"] + (f" ({detail})" if detail else "")
        members = tuple(sorted(group, key=lambda record: record.seed))
        arms.append(Arm(label, members, {key: mine[key] for key in differing if key in mine and key != "method"}))
    return arms


def regenerate(record: Record) -> str:
    """The command that makes a run again: as it was typed, or, for a run started from Python, one with the same settings."""
    settings = record.settings
    if record.command.startswith("rheostat ") or record.method not in table.METHODS or record.task.startswith(CUSTOM):
        return record.command
    words = ["rheostat", "train", record.method, record.task]
    for key in ("seed", "steps", "evaluation_episodes", "threads"):  # their defaults depend on the method's domain
        if key in settings:
            words += [f"--{key.replace('_', '-')}", str(settings[key])]
    spelled = {"method", "task", "config", "environment_options", "seed", "steps", "evaluation_episodes", "threads"}
    defaults: dict[str, Any] = {item.name: item.default for item in dataclasses.fields(Settings)} | {"rewards": [], "reward_needs": []}
    with contextlib.suppress(RheostatError, ImportError):  # without the method's defaults every setting of it is spelled out
        from rheostat.training.language_setup import automatic_preset

        preset = None
        if table.entry(record.method).domain == "language":
            preset = automatic_preset(record.method, None if settings.get("prompts") else record.task, settings.get("model"))
        known = options_of(configure(record.method, {}, preset=preset))
        plain = {each.path: json.loads(json.dumps(each.value)) for each in known}
        defaults |= plain | {each.short: plain[each.path] for each in known}  # runs of version 0.1 have short names alone
    given = {key: value for key, value in settings.items() if key not in spelled} | dict(flatten(settings.get("config", {})))
    missing = object()
    for key, value in given.items():
        if value == defaults.get(key, missing):
            continue
        flag = "reward" if key == "rewards" else key.replace("_", "-")
        if isinstance(value, bool):
            part, dot, name = flag.rpartition(".")
            words.append(f"--{flag}" if value else f"--{part}{dot}no-{name}")
        else:
            words += [f"--{flag}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    if settings.get("environment_options"):
        words.append("--environment")
        words += [word for key, value in settings["environment_options"].items() for word in (key, json.dumps(value))]
    return shlex.join(words)


def differing_keys(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all, in order of appearance."""
    missing = object()
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if any(one.get(key, missing) != settings[0].get(key, missing) for one in settings[1:])]
