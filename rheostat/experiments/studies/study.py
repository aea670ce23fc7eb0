"""Studies: claims, each with arms of cells and a rule that turns their results into a verdict.

A file ``studies/<slug>.py`` defines ``STUDY``. Nothing about a verdict is decided after the data are seen: arms, budgets, rules, margins
and preconditions are the file, and seeds are looked at as :mod:`rheostat.analysis.verdict` says. Its result is plain JSON beside it, made
by two commands::

    rheostat study SLUG --pilot
    rheostat study SLUG
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rheostat.analysis.verdict import RULE, holm
from rheostat.errors import RheostatError, unknown
from rheostat.experiments.studies.declaration import PILOT_SEED, PILOT_SEEDS, Precondition, not_testable
from rheostat.experiments.studies.jobs import Cell, Record
from rheostat.experiments.studies.rules import Condition, as_json, family_p, verdict
from rheostat.experiments.studies.tuning import Search

Columns = dict[str, list[float]]
"""A curve of one seed as columns of equal length; one of them is ``steps``, the budget it is drawn against. Other budgets
(``generated_tokens``, ``learner_tokens``, ``gradient_steps``, ``flops``, ``seconds``, ``reward_calls``) are columns too."""
BUDGETS = ("steps", "tokens", "budget")
"""Arguments of a cell that define its budget; equal in all arms of a claim."""
Results = Callable[[Cell], Any]
"""From a cell to its result."""


@dataclass(frozen=True)
class Effect:
    """The one number of a claim that goes into the table of claims."""

    what: str
    estimate: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class Judgement:
    """The conditions of a claim over the seeds."""

    conditions: list[Condition]
    metrics: dict[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Mapping[int, Columns]] = field(default_factory=dict)
    """By arm and seed, for the report."""
    effect: Effect | None = None
    """By default that of the condition that decides (:func:`effect_of`)."""


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, and its test here."""

    name: str
    title: str
    published: str
    """The claim with its numbers."""
    setting: str
    """The setting here: task, budget, shared options and those of each arm."""
    arms: dict[str, dict[int, Cell]]
    """Cells by arm and seed."""
    judge: Callable[[Results], Judgement]
    extra: tuple[Cell, ...] = ()
    """Further cells, outside the arms."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """By measurement, the smallest difference that matters: conditions may use these and no others."""
    preconditions: tuple[Precondition, ...] = ()
    """Preconditions in the pilot, without which the claim is not testable here."""
    seeded: bool = True
    """Whether its cells are numbered by seeds; not where one cell holds all of it."""

    @property
    def cells(self) -> list[Cell]:
        """Everything to compute, seeds first, so that an interrupted study has all arms of some seeds."""
        seeds = sorted({seed for cells in self.arms.values() for seed in cells})
        return [cells[seed] for seed in seeds for cells in self.arms.values() if seed in cells] + list(self.extra)


class Sizes(Protocol):
    """A frozen dataclass of what differs between a study and its smoke form. Fields named ``seeds...`` are set to the number of seeds of a
    look, and cells are numbered from the field ``first_seed``."""

    __dataclass_fields__: Any


@dataclass(frozen=True)
class Scale:
    """Other sizes of a study, under a name (:mod:`rheostat.experiments.studies.scales`)."""

    sizes: Any
    smoke: Any
    """Its arms and options in seconds, on a processor."""
    source: str
    """Where the sizes come from."""
    device: str = "cuda"


@dataclass(frozen=True)
class Study:
    """One file of ``studies/``."""

    slug: str
    system: str
    paper: str
    claims: Callable[[Any], list[Claim]]
    """From the sizes."""
    full: Any
    smoke: Any
    draw: Callable[[dict[str, Any], Path], None] | None = None
    """Draws the result into a picture of its own; by default the curves."""
    search: Search | None = None
    """The search that gives the study its tuned form (:mod:`rheostat.experiments.studies.tuning`)."""
    scales: Mapping[str, Scale] = field(default_factory=dict)
    """Other sizes, by name."""
    searched: Mapping[str, Any] | None = None
    """Of a tuned form: what its search found, and what that cost."""

    @property
    def seeded(self) -> bool:
        """Whether it has seeds at all; without, everything is computed exactly, and neither pilot nor looks mean anything."""
        return bool(_seed_fields(self.full))

    def sizes(self, *, smoke: bool = False, pilot: bool = False, seeds: int | None = None) -> Any:
        """The requested sizes; by default those of the first look, or of a pilot.

        Raises:
            RheostatError: less than one seed, or a study that has no seeds, or does not number its cells from ``first_seed``.
        """
        found = self.smoke if smoke else self.full
        if seeds is not None and seeds < 1:
            raise RheostatError(f"--seeds is {seeds}: a study needs at least 1.")
        if not self.seeded:
            if pilot or seeds is not None:
                raise RheostatError(f"The study {self.slug} has no seeds: it is computed in one piece, without a pilot.")
            return found
        count = seeds or (PILOT_SEEDS if pilot else None if smoke else RULE.looks[0])
        changes: dict[str, int] = {} if count is None else dict.fromkeys(_seed_fields(found), count)
        if pilot:
            if not hasattr(found, "first_seed"):
                raise RheostatError(f"The sizes of the study {self.slug} have no field first_seed, so its pilot cannot have its own seeds.")
            changes["first_seed"] = PILOT_SEED
        return dataclasses.replace(found, **changes)


def check(study: Study, claims: list[Claim], *, pilot: bool = False) -> None:
    """Refuse errors that would make a verdict meaningless.

    Raises:
        RheostatError: arms with unequal budgets or different seeds, a pilot and a study that share seeds, two claims of one name.
    """
    names = [claim.name for claim in claims]
    if len(set(names)) < len(names):
        raise RheostatError(f"The study {study.slug} has two claims of the same name: {', '.join(sorted(names))}.")
    for claim in claims:
        where = f"The study {study.slug}, claim {claim.name!r}"
        if not claim.arms or not all(claim.arms.values()):
            raise RheostatError(f"{where}: every arm needs at least one seed.")
        first_arm, first = next(iter(claim.arms.items()))
        for arm, cells in claim.arms.items():
            if set(cells) != set(first):
                raise RheostatError(f"{where}: the arms {first_arm} and {arm} have different seeds.")
            for name in BUDGETS:
                budgets = {json.dumps(cell.arguments.get(name)) for cell in (*cells.values(), *first.values())}
                if len(budgets) > 1:
                    raise RheostatError(
                        f"{where}: the arms {first_arm} and {arm} have unequal budgets ({name} {' and '.join(sorted(budgets))})."
                    )
        if claim.seeded:
            wrong = [seed for seed in first if (seed >= PILOT_SEED) != pilot]
            if wrong:
                raise RheostatError(
                    f"{where}: seed {wrong[0]} {'is not a pilot seed' if pilot else 'is a pilot seed'}; pilots have the seeds from "
                    f"{PILOT_SEED} on and studies those below, so that nothing is judged by what it was planned on."
                )


def only_arms(claims: list[Claim], wanted: tuple[str, ...]) -> list[Claim]:
    """The claims with other arms left out; a claim that has none of them is left out altogether.

    Raises:
        RheostatError: an arm that no claim has.
    """
    known = list(dict.fromkeys(arm for claim in claims for arm in claim.arms))
    for arm in wanted:
        if arm not in known:
            raise unknown("arm", arm, known)
    kept = [dataclasses.replace(claim, arms={arm: cells for arm, cells in claim.arms.items() if arm in wanted}) for claim in claims]
    return [claim for claim in kept if claim.arms]


def report_of(claim: Claim, records: Mapping[str, Record], preconditions: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A claim with its verdict, as plain JSON.

    Args:
        claim: to evaluate.
        records: its cells, by key; not needed where a precondition failed.
        preconditions: measurements of the pilot.

    Raises:
        RheostatError: a curve with a number that is not finite, columns of different lengths, or a margin that the claim does not declare.
    """
    failed = not_testable(preconditions or [])
    if failed:
        return _report(claim, Judgement(failed), preconditions or [], judged_seeds=False)
    judged = claim.judge(lambda cell: records[cell.key]["result"])
    for condition in judged.conditions:
        margin = condition.numbers.get("margin")
        if margin is not None and margin not in claim.margins.values():
            raise RheostatError(f"Claim {claim.name!r} uses the margin {margin:g} in {condition.rule!r} and does not declare it.")
    return _report(claim, judged, preconditions or [], judged_seeds=True)


def measured_report(claim: Claim, preconditions: list[dict[str, Any]]) -> dict[str, Any]:
    """A claim of which a pilot has run no more than its preconditions need: it is not judged."""
    unjudged = Condition("not judged: the pilot ran what the preconditions read", "undecided", {})
    return _report(claim, Judgement([unjudged]), preconditions, judged_seeds=True)


def _report(claim: Claim, judged: Judgement, preconditions: list[dict[str, Any]], *, judged_seeds: bool) -> dict[str, Any]:
    seeds = sorted(next(iter(claim.arms.values())))
    curves = {arm: {str(seed): columns for seed, columns in seeds.items()} for arm, seeds in judged.curves.items()}
    for where, columns in _each(curves):
        _check_curve(f"claim {claim.name!r}, {where}", columns)
    effect = judged.effect or effect_of(judged.conditions)
    return {
        "name": claim.name,
        "title": claim.title,
        "published": claim.published,
        "setting": claim.setting,
        "rule": "; ".join(condition.rule for condition in judged.conditions),
        "verdict": verdict(judged.conditions),
        "effect": None if effect is None else dataclasses.asdict(effect),
        "conditions": as_json(judged.conditions),
        "margins": dict(claim.margins),
        "preconditions": preconditions,
        "p_value": family_p(judged.conditions),
        "pilot": claim.seeded and judged_seeds and (max(seeds) >= PILOT_SEED or len(seeds) < RULE.looks[0]),
        "content": content_of([claim]),
        "seeds": seeds,
        "arms": arms_of(claim),
        "metrics": judged.metrics,
        "curves": curves,
    }


def arms_of(claim: Claim) -> dict[str, dict[str, Any]]:
    """The definition of every arm, by the arguments of its first cell."""
    shown = {arm: next(iter(cells.values())).arguments for arm, cells in claim.arms.items()}
    keys = ("method", "task", "config", "arm", "settings", *BUDGETS)
    return {arm: {key: arguments[key] for key in keys if key in arguments} for arm, arguments in shown.items()}


def effect_of(conditions: list[Condition]) -> Effect | None:
    """The first condition that has an estimate with an interval, of those with the outcome of the whole claim if there is one."""
    whole = verdict(conditions)
    for condition in sorted(conditions, key=lambda each: each.outcome != whole):
        numbers = condition.numbers
        for name in ("ratio", "difference", "estimate"):
            if name in numbers and "low" in numbers:
                what = f"{name}: {condition.rule}"
                return Effect(what, numbers[name], numbers["low"], numbers.get("high"), int(numbers.get("seeds", 0)))
    return None


def adjust(reports: list[dict[str, Any]]) -> None:
    """Give every claim its p-value adjusted by Holm for the family of all claims of the study that tested something (None elsewhere)."""
    adjusted = holm({report["name"]: report["p_value"] for report in reports if report["p_value"] is not None})
    for report in reports:
        report["holm_p"] = adjusted.get(report["name"])


def _seed_fields(sizes: Any) -> list[str]:
    return [item.name for item in dataclasses.fields(sizes) if item.name.startswith("seeds")]


def content_of(claims: list[Claim]) -> str:
    """Hash of the arguments and code behind every claim: a stored result with another one is of other code or another configuration."""
    contents = sorted({cell.content for claim in claims for cell in claim.cells})
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:20]


def compact(value: Any) -> str:
    """Readable JSON with lists of plain values on one line."""
    text = json.dumps(value, indent=1, allow_nan=False)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda match: "[" + re.sub(r",\s+", ", ", match[1]) + "]", text) + "\n"


def _each(curves: Mapping[str, Mapping[str, Columns]]) -> Iterator[tuple[str, Columns]]:
    for arm, seeds in curves.items():
        for seed, columns in seeds.items():
            yield f"{arm}, seed {seed}", columns


def _check_curve(where: str, columns: Columns) -> None:
    if "steps" not in columns:
        raise RheostatError(f"The curve of {where} has no column 'steps' to be drawn against.")
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise RheostatError(f"The columns of the curve of {where} have different lengths: {lengths}.")
    for name, values in columns.items():
        for index, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                raise RheostatError(
                    f"The curve of {where} has {value} in {name} at point {index}: look at that cell, a statistic cannot average it away."
                )
