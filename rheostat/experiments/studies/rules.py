"""Conditions of studies: from numbers per seed to a verdict, by the one rule of :mod:`rheostat.analysis.verdict`.

A claim is a list of conditions. It is **refuted** when one is, **supported** when every condition is, and **no relevant difference** when
none is refuted and one of them is that; else it is **undecided**. Whether a study can test its claims here at all is decided by its
preconditions (:class:`~rheostat.experiments.studies.study.Precondition`).

better, smaller   the one is above (below) the other, also by more than a least difference (factor)
not_worse         the one is not below the other by more than the margin
alike             the two differ by less than the margin
above, within     a number per seed against bounds
majority          more than half of the seeds
exact             numbers that were computed and not sampled
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rheostat.analysis.statistics import Interval
from rheostat.analysis.verdict import RULE, Outcome, Rule, Verdict, judge, over_looks
from rheostat.errors import RheostatError

Seeds = Mapping[int, float]
"""``{seed: number}``."""


@dataclass(frozen=True)
class Condition:
    """One condition of a claim, and its outcome over the seeds."""

    rule: str
    outcome: Outcome
    numbers: dict[str, Any] = field(default_factory=dict)
    """With ``margin`` where one was declared, and ``p_value`` where something was tested."""


def verdict(conditions: list[Condition]) -> Outcome:
    """See the module docstring."""
    outcomes = [condition.outcome for condition in conditions]
    worst: tuple[Outcome, ...] = ("refuted", "not testable here", "no relevant difference", "undecided")
    return next((outcome for outcome in worst if outcome in outcomes), "supported" if outcomes else "undecided")


def family_p(conditions: list[Condition]) -> float | None:
    """The p-value of a claim: the largest of its conditions, because all must be true; where it is refuted, the smallest of those that
    refute it, times the number of conditions that were tested. None where nothing was."""
    tested = [
        (one.outcome, over_looks(one.numbers["p_value"], one.numbers["level"]))
        for one in conditions
        if one.numbers.get("p_value") is not None
    ]
    against = [p for outcome, p in tested if outcome == "refuted"]
    if against:
        return _short(min(1.0, min(against) * len(tested)))
    return max((_short(p) for _, p in tested), default=None)


def better(what: str, a: Seeds, b: Seeds, *, by: float = 0.0, margin: float | None = None, rule: Rule = RULE) -> Condition:
    """A is above B, by more than ``by`` where it is given; larger is better."""
    found = judge(a, b, by=by, margin=margin, rule=rule)
    return Condition(f"{what}: difference above {by:g}", found.outcome, _difference(found, margin or by or None))


def smaller(what: str, a: Seeds, b: Seeds, *, factor: float = 1.0, margin: float | None = None, rule: Rule = RULE) -> Condition:
    """A is less than ``factor`` times B: the geometric mean of the paired ratios, judged on the log scale.

    Args:
        what, rule: see :func:`better`.
        a, b: positive numbers by seed.
        factor: at most 1 for "smaller".
        margin: a factor above 1 within which ratios do not matter, e.g. 1.1.
    """
    log_margin = None if margin is None else math.log(margin)
    found = judge(_merit(a), _merit(b), by=-math.log(factor), margin=log_margin, rule=rule)
    gap, iqm = found.difference, found.iqm
    numbers = {
        "ratio": _short(math.exp(-gap.estimate)),
        "low": _bound(math.exp(-gap.high)) if math.isfinite(gap.high) else None,
        "high": _bound(math.exp(-gap.low)) if math.isfinite(gap.low) else None,
        "iqm": _short(math.exp(-iqm.estimate)),
    }
    return Condition(f"{what}: ratio below {factor:g}", found.outcome, numbers | _rest(found, margin or (factor if factor != 1 else None)))


def not_worse(what: str, a: Seeds, b: Seeds, *, margin: float, rule: Rule = RULE) -> Condition:
    """A is not below B by more than ``margin``: the interval's lower bound lies above minus the margin."""
    found = judge(a, b, question="no worse", margin=margin, rule=rule)
    return Condition(f"{what}: not lower by more than {margin:g}", found.outcome, _difference(found, margin))


def alike(what: str, a: Seeds, b: Seeds, *, margin: float, rule: Rule = RULE) -> Condition:
    """A and B differ by less than ``margin``: the interval lies inside it."""
    found = judge(a, b, question="alike", margin=margin, rule=rule)
    return Condition(f"{what}: differ by less than {margin:g}", found.outcome, _difference(found, margin))


def above(what: str, values: Seeds, bound: float, *, rule: Rule = RULE) -> Condition:
    """The mean over seeds lies above a bound."""
    found = judge(values, dict.fromkeys(values, bound), rule=rule)
    return Condition(f"{what}: above {bound:g}", found.outcome, _estimate(found, bound))


def within(what: str, values: Seeds, low: float, high: float, *, rule: Rule = RULE) -> Condition:
    """The mean over seeds lies between two bounds: the interval lies inside them."""
    centre, margin = (low + high) / 2, (high - low) / 2
    found = judge(values, dict.fromkeys(values, centre), question="alike", margin=margin, rule=rule)
    return Condition(f"{what}: between {low:g} and {high:g}", found.outcome, _estimate(found, centre))


def majority(what: str, values: Mapping[int, bool], *, rule: Rule = RULE) -> Condition:
    """True for more than half of the seeds (the sign test, at the looks of the rule)."""
    found = judge({seed: float(value) for seed, value in values.items()}, dict.fromkeys(values, 0.5), rule=rule)
    numbers = {"estimate": _short(found.probability.estimate), "low": _bound(found.probability.low), "high": _bound(found.probability.high)}
    return Condition(f"{what}: for more than half of the seeds", found.outcome, numbers | _rest(found, None))


def exact(rule: str, holds: bool, **numbers: Any) -> Condition:
    """A condition on numbers that were computed, not sampled."""
    return Condition(rule, "supported" if holds else "refuted", {name: _plain(value) for name, value in numbers.items()})


def summary(values: Seeds) -> dict[str, Any]:
    """Mean, standard error and the numbers per seed."""
    numbers = np.array([values[seed] for seed in sorted(values)])
    error = numbers.std(ddof=1) / math.sqrt(len(numbers)) if len(numbers) > 1 else None
    return {
        "mean": _short(float(numbers.mean())),
        "standard_error": None if error is None else _short(float(error)),
        "seeds": sorted(values),
        "per_seed": [_short(x) for x in numbers.tolist()],
    }


def as_json(conditions: list[Condition]) -> list[dict[str, Any]]:
    """For the result file."""
    return [asdict(condition) for condition in conditions]


def _difference(found: Verdict, margin: float | None) -> dict[str, Any]:
    gap = found.difference
    numbers = {"difference": _short(gap.estimate), "low": _bound(gap.low), "high": _bound(gap.high), "iqm": _text(found.iqm)}
    return numbers | {"improvement": _text(found.probability)} | _rest(found, margin)


def _estimate(found: Verdict, bound: float) -> dict[str, Any]:
    """The number itself instead of its difference from a bound."""
    gap = found.difference
    numbers = {"estimate": _short(gap.estimate + bound), "low": _bound(gap.low + bound), "high": _bound(gap.high + bound)}
    return numbers | _rest(found, None)


def _rest(found: Verdict, margin: float | None) -> dict[str, Any]:
    return {
        "margin": margin,
        "level": found.difference.level,
        "p_value": None if found.look is None else _short(found.p_value),
        "seeds": found.seeds,
        "look": found.look,
        "next_look": found.next_look,
        "flags": list(found.flags),
    }


def _merit(values: Seeds) -> dict[int, float]:
    """Minus the logarithm: larger is better.

    Raises:
        RheostatError: a number that has no logarithm.
    """
    for seed, value in values.items():
        if not value > 0:
            raise RheostatError(f"Seed {seed} has {value}, and only positive numbers can be compared by their ratio: look at that cell.")
    return {seed: -math.log(value) for seed, value in values.items()}


def _text(interval: Interval) -> str:
    """An interval in short, where a number stands beside the main one."""
    bounds = f" [{interval.low:.3g}, {interval.high:.3g}]" if math.isfinite(interval.low) else ""
    return f"{interval.estimate:.3g}{bounds}"


def _plain(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _short(x: float) -> float:
    return float(f"{x:.6g}")


def _bound(x: float) -> float | None:
    return _short(x) if math.isfinite(x) else None
