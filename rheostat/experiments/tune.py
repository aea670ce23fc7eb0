"""Search for options of a method on a task: trials proposed by Optuna, trained like any other runs, at a cost that is reported.

    tune-.../tune.json              what is searched, and what was found
             trials.log             Optuna's journal: every trial with its options, state and value
             trial-0000-s10000/     ordinary run directories, one per trial and seed
             logs/                  what the workers printed
             report.html

A trial's value is the mean over its seeds of the final evaluation. Its seeds begin at :data:`FIRST_SEED`, so that no later comparison
(seeds 0, 1, ...) evaluates on the randomness that was tuned on. Naming the directory again goes on: finished trials are kept and
interrupted ones resumed. A trial that fails, in its options or while it trains, is one sentence, and the search goes on.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rheostat.analysis.online_selection import by_budget
from rheostat.analysis.records import Record, read_record
from rheostat.errors import MissingExtra, RheostatError, shown_error
from rheostat.experiments.comparison import SIDE_BY_SIDE, ComparisonInterrupted, check_jobs
from rheostat.experiments.display import GridBar, Quiet
from rheostat.experiments.grid import Display, Grid, GridRun
from rheostat.experiments.manifests import read_fields, write_fields
from rheostat.locks import held
from rheostat.terminal import json_or_text
from rheostat.training.run_directory import LOCK
from rheostat.training.settings import configure, usual_steps
from rheostat.training.settings_from_options import free_directory, settings_for
from rheostat.training.trust import remember

FIRST_SEED = 10_000
"""Of the runs of a trial."""
MANIFEST, JOURNAL = "tune.json", "trials.log"
WIDTH = 10.0
"""Where no range is given, the learning rate is searched from its default divided by this to its default times this."""
PLAN = {"method": str, "task": str, "space": dict, "seeds": int, "steps": int, "options": dict, "command": str}
"""What a directory must say of its search."""
SAME = tuple(name for name in PLAN if name != "command")
"""What a search that goes on must have as it was."""


@dataclass(frozen=True)
class Range:
    """The values of an option that are tried: one of ``choices``, or from ``low`` to ``high``."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    """Evenly in the logarithm."""
    choices: tuple[Any, ...] = ()

    @classmethod
    def read(cls, name: str, text: str) -> Range:
        """``LOW..HIGH``, ``log:LOW..HIGH`` or ``A|B|C``; from whole numbers to whole numbers only whole ones are tried.

        Raises:
            RheostatError: anything else, or a range without values.
        """
        if "|" in text:
            return cls(choices=tuple(json_or_text(part) for part in text.split("|")))
        body = text.removeprefix("log:")
        low, dots, high = (json_or_text(part) for part in body.partition(".."))
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in (low, high))
        if not (dots and numbers):
            raise RheostatError(f"The range of {name} is {text!r}: write LOW..HIGH, log:LOW..HIGH, or choices as A|B|C.")
        found = cls(low, high, body != text)
        if not low < high or (found.log and low <= 0):
            raise RheostatError(f"The range of {name} is {text!r}: it must rise{', from above 0' if found.log else ''}.")
        return found

    def suggest(self, trial: Any, name: str) -> Any:
        """A value for an Optuna trial."""
        if self.choices:  # by place, because choices may be lists
            return self.choices[trial.suggest_categorical(name, list(range(len(self.choices))))]
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        value = trial.suggest_float(name, self.low, self.high, log=self.log)
        return min(max(float(f"{value:.4g}"), self.low), self.high)  # nobody types, or needs, seventeen digits


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        number: from 0.
        options: of the method.
        value: mean final evaluation over the seeds; None where it failed or is not finished.
        error: why it failed.
        records: its runs.
    """

    number: int
    options: dict[str, Any]
    value: float | None
    error: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Tuning:
    """What a search found, and what it cost.

    Attributes:
        directory: where it is kept.
        method, task: what was tuned.
        seeds: runs per trial.
        trials: in order.
        offline: whether policies learned from a data set, so that trying them is what takes an environment.
    """

    directory: Path
    method: str
    task: str
    seeds: int
    trials: tuple[Trial, ...]
    offline: bool = False

    @cached_property
    def best(self) -> Trial | None:
        """The trial with the largest value; of equal ones the first."""
        return max((trial for trial in self.trials if trial.value is not None), key=lambda trial: trial.value or 0.0, default=None)

    @property
    def cost(self) -> dict[str, float]:
        """Trials, those that failed, runs, steps and seconds of computing that the search has taken."""
        records = [record for trial in self.trials for record in trial.records]
        seconds = [record.columns["seconds"] for record in records if "seconds" in record.columns and len(record.columns["seconds"])]
        return {
            "trials": len(self.trials),
            "failed": sum(bool(trial.error) for trial in self.trials),
            "runs": len(records),
            "steps": sum(record.steps for record in records),
            "seconds": round(sum(float(column[-1]) for column in seconds if math.isfinite(column[-1])), 1),
        }

    @property
    def by_budget(self) -> dict[int, float]:
        """The expected value of choosing among so many policies online, for offline methods; each run of a finished trial is one policy."""
        finished = [trial for trial in self.trials if trial.value is not None]
        return by_budget([record.final for trial in finished for record in trial.records]) if self.offline else {}

    @property
    def spec(self) -> str:
        """The best trial as ``METHOD:OPTION=VALUE,...``."""
        assert self.best is not None
        options = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in self.best.options.items())
        return f"{self.method}:{','.join(options)}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        rows = [{"trial": each.number, "options": each.options, "value": each.value, "error": each.error} for each in self.trials]
        best = None if self.best is None else {"trial": self.best.number, "options": self.best.options, "value": self.best.value}
        chosen = {"chosen_online": [[k, value] for k, value in self.by_budget.items()]} if self.offline else {}
        return {"method": self.method, "task": self.task, "seeds": self.seeds, "best": best, "cost": self.cost, "trials": rows} | chosen


def tune(
    method: str,
    task: str,
    *,
    trials: int = 20,
    search: Mapping[str, str] | None = None,
    seeds: int = 1,
    steps: int | None = None,
    jobs: int | None = None,
    directory: str | Path | None = None,
    progress: bool | Display = True,
    **options: Any,
) -> Tuning:
    """Search for options with the largest final evaluation.

    Args:
        method: its name.
        task: by name.
        trials: how many settings are tried in all; those of a search that goes on count.
        search: ranges by name of the option (:meth:`Range.read`); None searches the learning rate around its default.
        seeds: runs per trial, from :data:`FIRST_SEED` on.
        steps: budget of every run; None takes that of a single run.
        jobs: runs at a time; None takes one per core.
        directory: where it is kept; one that holds an unfinished search of the same kind continues it.
        progress: show a live display.
        **options: settings of the run and of the method, the same in every trial.

    Raises:
        RheostatError: what cannot be searched, a directory that holds something else, or every trial failed. MissingExtra: no Optuna.
        ComparisonInterrupted: a signal came; everything is saved.
    """
    check_jobs(jobs)
    for name, value in (("trials", trials), ("seeds", seeds)):
        if value < 1:
            raise RheostatError(f"{name} is {value}: a search needs at least 1.")
    if "seed" in options:
        raise RheostatError(f"A search chooses its seeds itself ({FIRST_SEED:,}, ...): give how many with seeds, not seed.")
    texts = dict(search or {}) or _usual(method, options)
    space = {name: Range.read(name, text) for name, text in texts.items()}
    if both := [name for name in space if name in options]:
        raise RheostatError(f"{both[0]} is both searched and given: leave one out.")
    steps = usual_steps([method]) if steps is None else steps
    where = Path(directory) if directory else free_directory(f"tune-{method}-{task}")
    plan = {"method": method, "task": task, "space": texts, "seeds": seeds, "steps": steps, "options": json.loads(json.dumps(options))}
    base = SIDE_BY_SIDE | options
    settings_for(method, task, seed=FIRST_SEED, steps=steps, **base)  # what is wrong in every trial is refused at once
    configure(method, {name: _middle(each) for name, each in space.items()})  # so is an option that the method does not have
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtra("optuna", "tune", "Searching for options")
    command = _command(plan, trials, where)
    _begin(where, plan | {"command": command})
    with held(where / LOCK, f"the search in {where}"):
        display = (GridBar(f"tune {method}") if progress else Quiet()) if isinstance(progress, bool) else progress
        _Search(where, plan, space, base, jobs or len(os.sched_getaffinity(0)), display, command).run(trials)
        found = load_tuning(where)
        write_fields(where / MANIFEST, plan | {"command": command, "result": found.to_json()})
    if found.best is None:
        raise RheostatError(f"Every trial failed, the first one with: {found.trials[0].error}")
    return found


@dataclass
class _Search:
    """Asks Optuna for trials, trains them, and tells it what they reached."""

    where: Path
    plan: dict[str, Any]
    space: dict[str, Range]
    base: dict[str, Any]
    jobs: int
    display: Display
    command: str

    def run(self, trials: int) -> None:
        """Until there are so many trials."""
        study = open_study(self.where, self.plan)
        begun = [trial for trial in study.trials if not trial.state.is_finished()]
        size = max(1, self.jobs // self.plan["seeds"])
        while begun or len(study.trials) < trials:
            numbers = [trial.number for trial in begun[:size]]
            if not numbers:
                numbers = [self._ask(len(study.trials)) for _ in range(min(size, trials - len(study.trials)))]
            begun = begun[size:]
            self._train({number: options_of_trial(study.trials[number]) for number in numbers}, study)

    def _ask(self, number: int) -> int:
        """A new trial. Optuna's random numbers depend on its number, so that a search that goes on proposes what it would have proposed."""
        trial = open_study(self.where, self.plan, seed=number).ask()
        chosen = {name: each.suggest(trial, name) for name, each in self.space.items()}
        trial.set_user_attr("options", chosen)
        return int(trial.number)

    def _train(self, batch: dict[int, dict[str, Any]], study: Any) -> None:
        """Train some trials side by side, and tell what they reached."""
        runs: dict[int, list[GridRun]] = {}
        errors: dict[int, str] = {}
        for number, chosen in batch.items():
            try:
                runs[number] = [self._run(number, chosen, FIRST_SEED + index) for index in range(self.plan["seeds"])]
            except RheostatError as error:  # options that do not go together
                errors[number] = str(error)
        every = [run for mine in runs.values() for run in mine]
        if every and not Grid(every, self.jobs, self.where / "logs", self.command, self.display).run():
            raise ComparisonInterrupted(self.where, self.command)
        for number in batch:
            mine = runs.get(number, [])
            failed = next((run.error for run in mine if run.state == "failed"), errors.get(number))
            try:
                value = None if failed else statistics.fmean(read_record(run.directory).final for run in mine)
            except RheostatError as error:
                value, failed = None, str(error)
            if failed:
                study.set_user_attr(f"error-{number}", failed)
                self.display.note(f"Trial {number} failed: {failed}")
            study.tell(number, value, state=None if value is not None else _failed())

    def _run(self, number: int, chosen: dict[str, Any], seed: int) -> GridRun:
        settings = settings_for(self.plan["method"], self.plan["task"], seed=seed, steps=self.plan["steps"], **self.base | chosen)
        name = f"trial-{number:04d}-s{seed}"
        return GridRun(name, f"trial {number}", self.where / name, settings)


def open_study(where: Path, plan: Mapping[str, Any], seed: int = 0) -> Any:
    """The Optuna study in a directory; made where there is none.

    Raises:
        MissingExtra: Optuna is not installed.
        RheostatError: its journal is damaged.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise MissingExtra("optuna", "tune", "Searching for options") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(where / JOURNAL)))
        sampler = optuna.samplers.TPESampler(seed=seed)
        return optuna.create_study(
            storage=storage, sampler=sampler, study_name=str(plan["method"]), direction="maximize", load_if_exists=True
        )
    except (ValueError, KeyError) as error:
        raise RheostatError(f"{where / JOURNAL} is damaged: {shown_error(error)}.") from error


def options_of_trial(trial: Any) -> dict[str, Any]:
    """The options that a trial of Optuna's has; a trial that was killed while it was asked for has none, and trains the defaults."""
    return dict(trial.user_attrs.get("options", {}))


def load_tuning(directory: str | Path) -> Tuning:
    """Open a search, finished or not.

    Raises:
        RheostatError: there is none, or a file is damaged.
    """
    where = Path(directory)
    plan = read_plan(where)
    if plan is None:
        raise RheostatError(f"There is no search in {where}: it has no {MANIFEST}.")
    study = open_study(where, plan)
    trials = []
    for each in study.trials:
        places = sorted(where.glob(f"trial-{each.number:04d}-s*"))
        records = tuple(read_record(place) for place in places if (place / "config.json").exists())
        error = str(study.user_attrs.get(f"error-{each.number}", ""))
        trials.append(Trial(each.number, options_of_trial(each), each.value, error, records))
    return Tuning(where, plan["method"], plan["task"], plan["seeds"], tuple(trials), "offline" in plan["options"])


def read_plan(where: Path) -> dict[str, Any] | None:
    """What a directory searches, or None if it holds no search.

    Raises:
        RheostatError: the file is damaged.
    """
    return read_fields(where / MANIFEST, PLAN)


def _begin(where: Path, plan: dict[str, Any]) -> None:
    """Make the directory, or refuse one that holds something else."""
    before = read_plan(where)
    if before is None and where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise RheostatError(f"{where} is not empty and holds no search: choose another directory.")
    for name in SAME if before else ():
        if before and before[name] != plan[name]:
            raise RheostatError(f"{where} was begun with {name} {before[name]!r}, not {plan[name]!r}: choose another directory.")
    try:
        where.mkdir(parents=True, exist_ok=True)
        remember(where, [plan["command"]])
        write_fields(where / MANIFEST, plan)
    except OSError as error:
        raise RheostatError(f"Cannot write to {where}: {error}.") from error


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _usual(method: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The learning rate around its default.

    Raises:
        RheostatError: a method without one.
    """
    from rheostat.options import options_of

    rates = [each for each in options_of(configure(method, {})) if each.short == "learning_rate"]
    if not rates or not isinstance(rates[0].value, float) or rates[0].path in options:
        raise RheostatError(f"Say what of {method} to search, for example --search learning_rate log:1e-5..1e-2.")
    return {rates[0].path: f"log:{rates[0].value / WIDTH:g}..{rates[0].value * WIDTH:g}"}


def _middle(each: Range) -> Any:
    """A value of a range."""
    if each.choices:
        return each.choices[0]
    return each.low if isinstance(each.low, int) else (each.low * each.high) ** 0.5 if each.log else (each.low + each.high) / 2


def _command(plan: Mapping[str, Any], trials: int, where: Path) -> str:
    words = ["rheostat", "tune", plan["method"], plan["task"], "--trials", str(trials), "--seeds", str(plan["seeds"])]
    words += ["--steps", str(plan["steps"]), "--directory", str(where), "--search"]
    words += [word for pair in plan["space"].items() for word in pair]
    if plan["options"]:
        words.append("--options")
        words += [word for name, value in plan["options"].items() for word in (name, json.dumps(value))]
    return shlex.join(words)
