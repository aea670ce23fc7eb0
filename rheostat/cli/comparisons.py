"""Several methods or settings: ``rheostat compare``, ``sweep`` and ``demo``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from rheostat.errors import RheostatError
from rheostat.experiments import MOST_JOBS, MOST_SEEDS
from rheostat.options import option
from rheostat.terminal import json_or_text, print_json

FILES = ("prompts", "preferences")
"""Flags that name a file in place of a task."""


@dataclass(kw_only=True)
class SeveralRuns:
    """What every set of runs has."""

    seeds: int = option(8, at_least=1, at_most=MOST_SEEDS)
    """Runs of every method or setting: fewer than 8 are a pilot, and verdicts are given after 8, 12, 16 and 24."""
    steps: int | None = option(None, at_least=1)
    """Budget of every run; by default that of a single one: environment steps (100,000) or, for language, updates (100)."""
    margin: float | None = option(None, above=0)
    """Difference of final values below which nothing matters; can be given only before the first run."""
    jobs: int = option(0, at_least=0, at_most=MOST_JOBS)
    """Runs at a time; 0 takes one per core."""
    directory: Path | None = None
    """Where the runs are kept; naming unfinished ones continues them."""
    prompts: str | None = None
    """A file of prompts (JSON lines or parquet) for language methods, in place of a task."""
    preferences: str | None = None
    """A file of preference data for methods that learn from them, in place of a task."""
    options: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Options that every run has, as names and JSON values, e.g. --options sampling_error_every 2."""
    json: bool = False
    """Print JSON."""

    def shared(self) -> dict[str, Any]:
        """What every run is given, as keyword arguments.

        Raises:
            RheostatError: an option that is a flag of the command.
        """
        refuse_own_flags(self, self.options)
        found = {"seeds": self.seeds, "steps": self.steps, "margin": self.margin, "jobs": self.jobs or None, "directory": self.directory}
        found |= {name: value for name in FILES if (value := getattr(self, name)) is not None}
        return found | {name: json_or_text(value) for name, value in self.options.items()}

    def show(self, result: Any) -> None:
        """The result as a table, or as JSON."""
        from rheostat import api

        if self.json:
            print_json(result.to_json() if hasattr(result, "to_json") else result.rows())
        else:
            api.show(result)


@dataclass(kw_only=True)
class Compare(SeveralRuns):
    """Train several methods over several seeds at equal budget, in parallel, and compare them."""

    methods: Positional[tuple[str, ...]]
    """Names of methods, each perhaps with options of its own, as NAME:OPTION=VALUE,...; the others are compared with the first."""
    task: tuple[str, ...] = ()
    """What to train on; `rheostat list` shows what there is. Over several tasks there are statistics of all of them. Leave it out where
    --prompts or --preferences gives a file."""

    def run(self) -> None:
        from rheostat import api

        self.show(api.compare(list(self.methods), self.task, **self.shared()))


@dataclass
class SweepDial:
    """Settings to try; exactly one of these gets several."""

    lag: tuple[int, ...] = option((), at_least=0)
    """Updates between the policy that samples and the one that learns."""
    refresh_every: tuple[int, ...] = option((), at_least=0)
    """Updates for which a copy of the policy samples before it is taken anew; 0 is that of the start."""
    replay_share: tuple[float, ...] = option((), share=True)
    """Share of every training batch drawn from earlier ones."""
    replay_age: tuple[int, ...] = option((), at_least=1)
    """Oldest data that may be replayed, in updates."""
    expert_share: tuple[float, ...] = option((), share=True)
    """Share of every training batch that an expert made."""
    updates_per_batch: tuple[int, ...] = option((), at_least=1)
    """Gradient steps on every batch."""


@dataclass(kw_only=True)
class Sweep(SeveralRuns):
    """Train a method at several settings of the dial and draw its result against them: --dial.lag 0 1 4 16."""

    method: Positional[str]
    """Name of the method."""
    task: Positional[str] = ""
    """What to train on; leave it out where --prompts or --preferences gives a file."""
    dial: SweepDial = field(default_factory=SweepDial)
    """What to turn."""
    seeds: int = option(3, at_least=1, at_most=MOST_SEEDS)
    """Runs of every setting: fewer than 8 are a pilot, and verdicts are given after 8, 12, 16 and 24."""

    def run(self) -> None:
        from rheostat import api

        dial = {name: values for name, values in dataclasses.asdict(self.dial).items() if values}
        self.show(api.sweep(self.method, self.task, dial=dial, **self.shared()))


@dataclass
class Tune:
    """Search for options of a method on a task: trials proposed by Optuna, at a cost that the report states."""

    method: Positional[str]
    """Name of the method."""
    task: Positional[str]
    """What to train on."""
    trials: int = option(20, at_least=1, at_most=100_000)
    """Settings to try in all; those of a search that goes on count."""
    search: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME RANGE ...")] = field(default_factory=dict)
    """Options and their ranges, as LOW..HIGH, log:LOW..HIGH or A|B|C; by default the learning rate around its default."""
    seeds: int = option(1, at_least=1, at_most=MOST_SEEDS)
    """Runs per trial; their seeds begin at 10,000, apart from those of comparisons."""
    steps: int | None = option(None, at_least=1)
    """Budget of every run; by default that of a single one."""
    jobs: int = option(0, at_least=0, at_most=MOST_JOBS)
    """Runs at a time; 0 takes one per core."""
    directory: Path | None = None
    """Where the search is kept; naming an unfinished one continues it."""
    options: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Options that every trial has, as names and JSON values."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat import api

        refuse_own_flags(self, self.options)
        given = {name: json_or_text(value) for name, value in self.options.items()}
        own: dict[str, Any] = {"trials": self.trials, "search": self.search, "seeds": self.seeds, "steps": self.steps}
        own |= {"jobs": self.jobs or None, "directory": self.directory}
        found = api.tune(self.method, self.task, **own, **given)
        if self.json:
            print_json(found.to_json())
        else:
            api.show(found)


def refuse_own_flags(command: Any, options: dict[str, str]) -> None:
    """Refuse ``--options`` that name a flag of the command.

    Raises:
        RheostatError: naming it.
    """
    for name in {item.name for item in dataclasses.fields(command)} & {name.replace("-", "_") for name in options}:
        raise RheostatError(f"--options gives {name}, which the command itself takes: say it there.")


@dataclass
class Demo:
    """PPO, PPO-Buffer and PROPS on CartPole-v1 and GRPO on a tiny language model: tables, pictures and reports."""

    seeds: int = option(3, at_least=1, at_most=MOST_SEEDS)
    """Runs per method."""
    steps: int = option(20_000, at_least=1)
    """Environment steps of every control run."""
    updates: int = option(20, at_least=1)
    """Updates of every language run."""
    directory: Path | None = None
    """Where the control runs are kept, and the language runs beside them in DIRECTORY-language; naming an unfinished demo continues it."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        import torch

        from rheostat import api
        from rheostat.reporting.tables import show_learning
        from rheostat.tasks.language.base_models import base_model, build_base_model

        control = api.compare(
            ["ppo", "ppo-buffer", "props"], "CartPole-v1", seeds=self.seeds, steps=self.steps, directory=self.directory, **CONTROL
        )
        if not self.json:
            api.show(control)
        torch.set_num_threads(1)  # the model is so small that several threads mostly wait for each other
        build_base_model(base_model(LANGUAGE["model"]), progress=not self.json)  # once, and not in every run
        where = control.directory.with_name(f"{control.directory.name}-language")
        language = api.compare(["grpo"], "chain-sum", seeds=self.seeds, steps=self.updates, directory=where, **LANGUAGE)
        if self.json:
            print_json({"control": control.rows(), "language": language.rows()})
        else:
            show_learning(language)


CONTROL: dict[str, Any] = {
    "batch_steps": 1024,
    "minibatches": 16,
    "learning_rate": 1e-3,
    "sampling_error_every": 5,
    "evaluate_every": 2_500,
}
LANGUAGE: dict[str, Any] = {
    "model": "chain-sum-quick",
    "environment_options": {"min_terms": 2, "max_terms": 3},
    "learning_rate": 5e-4,
    "evaluate_every": 5,
}
"""Settings of the demo's runs."""
