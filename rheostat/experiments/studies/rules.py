"""Rules of studies: from numbers per seed to a verdict.

A claim is a list of conditions. It is **held** when every condition is, **not held** when one is refuted, **undecided** otherwise.
Conditions with a margin use the house's rule for matched seeds (``rheostat.analysis.verdict``): an interval *and* an exact test, so
six seeds are the fewest that can decide at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rheostat.analysis.verdict import Outcome, decide_paired
from rheostat.errors import RheostatError

Seeds = Mapping[int, float]
"""``{seed: number}``."""


@dataclass(frozen=True)
class Condition:
    """One thing a claim requires, and what the seeds say."""

    rule: str
    outcome: Outcome
    numbers: dict[str, Any] = field(default_factory=dict)


def verdict(conditions: list[Condition]) -> Outcome:
    """See the module docstring."""
    outcomes = {condition.outcome for condition in conditions}
    return "not held" if "not held" in outcomes else "held" if outcomes == {"held"} else "undecided"


def smaller(what: str, a: Seeds, b: Seeds, *, factor: float = 1.0, level: float = 0.95) -> Condition:
    """A is less than ``factor`` times B: the geometric mean of the paired ratios, judged on the log scale."""
    result = decide_paired(_merit(a), _merit(b), generator=np.random.default_rng(0), margin=-math.log(factor), level=level)
    gap = result.difference
    numbers = {
        "ratio": _short(math.exp(-gap.estimate)),
        "low": _bound(math.exp(-gap.high)),
        "high": _bound(math.exp(-gap.low)) if math.isfinite(gap.low) else None,
        "level": gap.level,
        "p_value": _short(result.p_value),
        "seeds": len(a),
        "more_seeds": result.more_seeds,
    }
    return Condition(f"{what}: ratio below {factor:g}", result.outcome, numbers)


def better(what: str, a: Seeds, b: Seeds, *, margin: float = 0.0, level: float = 0.95) -> Condition:
    """A is above B by more than ``margin``, from matched seeds; larger is better."""
    result = decide_paired(a, b, generator=np.random.default_rng(0), margin=margin, level=level)
    gap = result.difference
    numbers = {
        "difference": _short(gap.estimate),
        "low": _bound(gap.low),
        "high": _bound(gap.high),
        "level": gap.level,
        "p_value": _short(result.p_value),
        "seeds": len(a),
        "more_seeds": result.more_seeds,
    }
    return Condition(f"{what}: difference above {margin:g}", result.outcome, numbers)


def all_smaller(what: str, a: Seeds, b: Seeds) -> Condition:
    """A is below B for every seed; what is observed is all this says."""
    count = sum(a[seed] < b[seed] for seed in a)
    return Condition(f"{what}: lower for every matched seed", "held" if count == len(a) else "not held", {"lower": count, "seeds": len(a)})


def not_worse(what: str, a: Seeds, b: Seeds) -> Condition:
    """A is at least B minus one standard error of the mean difference of matched seeds. Further below it is refuted only when B is better
    by the rule for matched seeds."""
    differences = np.array([a[seed] - b[seed] for seed in sorted(a)])
    gap, error = (
        float(differences.mean()),
        float(differences.std(ddof=1) / math.sqrt(len(differences))) if len(differences) > 1 else math.inf,
    )
    outcome: Outcome
    if math.isinf(error):
        outcome = "undecided"
    elif gap >= -error:
        outcome = "held"
    else:
        outcome = "not held" if decide_paired(b, a, generator=np.random.default_rng(0)).outcome == "held" else "undecided"
    numbers = {"difference": _short(gap), "standard_error": _short(error) if math.isfinite(error) else None, "seeds": len(a)}
    return Condition(f"{what}: not lower by more than one standard error", outcome, numbers)


def share_at_least(what: str, a: Seeds, b: Seeds) -> Condition:
    """The share of ones in A is at least that in B, as observed; a lower one is refuted only when B is better by the rule for matched
    seeds."""
    share_a, share_b = (float(np.mean(list(x.values()))) for x in (a, b))
    result = decide_paired(a, b, generator=np.random.default_rng(0))
    outcome: Outcome = "held" if share_a >= share_b else "not held" if result.outcome == "not held" else "undecided"
    gap = result.difference
    numbers = {"share": _short(share_a), "other": _short(share_b), "difference": _short(gap.estimate)}
    return Condition(f"{what}: at least as large", outcome, numbers | {"low": _short(gap.low), "high": _short(gap.high), "seeds": len(a)})


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


def _merit(values: Seeds) -> dict[int, float]:
    """Minus the logarithm: larger is better.

    Raises:
        RheostatError: a number that has no logarithm.
    """
    for seed, value in values.items():
        if not value > 0:
            raise RheostatError(f"Seed {seed} has {value}, and only positive numbers can be compared by their ratio: look at that cell.")
    return {seed: -math.log(value) for seed, value in values.items()}


def _short(x: float) -> float:
    return float(f"{x:.6g}")


def _bound(x: float) -> float | None:
    return _short(x) if math.isfinite(x) else None
