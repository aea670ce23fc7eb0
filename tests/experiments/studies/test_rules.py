"""Rules: what is held, refuted and undecided."""

from __future__ import annotations

import math

import pytest

from rheostat.errors import RheostatError
from rheostat.experiments.studies.rules import Condition, all_smaller, not_worse, share_at_least, smaller, summary, verdict
from rheostat.experiments.studies.sources import machine

LOW = {seed: 1.0 + 0.01 * seed for seed in range(8)}
HIGH = {seed: 2.0 + 0.02 * seed for seed in range(8)}


def test_a_claim_needs_every_condition() -> None:
    held, refuted, open_ = (Condition("", outcome) for outcome in ("held", "not held", "undecided"))
    assert verdict([held, held]) == "held"
    assert verdict([held, open_]) == "undecided"
    assert verdict([held, open_, refuted]) == "not held"
    assert verdict([]) == "undecided"


def test_a_ratio_is_judged_against_its_factor() -> None:
    condition = smaller("x", LOW, HIGH)
    assert condition.outcome == "held"
    assert condition.numbers["ratio"] == pytest.approx(0.5, rel=1e-3)  # the geometric mean of paired ratios
    assert condition.numbers["low"] <= condition.numbers["ratio"] <= condition.numbers["high"] < 1
    assert smaller("x", LOW, HIGH, factor=0.6).outcome == "held"
    assert smaller("x", LOW, HIGH, factor=0.4).outcome == "not held"
    assert smaller("x", HIGH, LOW).outcome == "not held"


def test_noise_and_few_seeds_are_undecided() -> None:
    mixed = {seed: 1.0 + (-1) ** seed * 0.3 for seed in range(8)}
    assert smaller("x", mixed, dict.fromkeys(mixed, 1.0)).outcome == "undecided"
    few = smaller("x", {s: LOW[s] for s in range(3)}, {s: HIGH[s] for s in range(3)})
    assert few.outcome == "undecided" and few.numbers["more_seeds"] == 3


def test_ratios_of_nothing_are_refused() -> None:
    with pytest.raises(RheostatError, match="Seed 2"):
        smaller("x", LOW | {2: 0.0}, HIGH)


def test_every_matched_seed() -> None:
    assert all_smaller("x", LOW, HIGH).outcome == "held"
    condition = all_smaller("x", LOW | {3: 9.0}, HIGH)
    assert condition.outcome == "not held" and condition.numbers == {"lower": 7, "seeds": 8}


def test_not_worse_allows_one_standard_error() -> None:
    base = {0: 10.0, 1: 12.0, 2: 11.0, 3: 9.0, 4: 10.0, 5: 12.0}
    shifts = (-3.0, 2.0, -2.0, 2.0, -1.0, 1.0)  # mean -1/6, standard error 0.87
    slightly = {seed: value + shift for (seed, value), shift in zip(base.items(), shifts, strict=True)}
    assert not_worse("x", slightly, base).outcome == "held"
    assert not_worse("x", HIGH, LOW).outcome == "held"
    assert not_worse("x", LOW, HIGH).outcome == "not held"
    four = {seed: base[seed] for seed in range(4)}
    lower = {seed: value - 1 + 0.1 * seed for seed, value in four.items()}
    assert not_worse("x", lower, four).outcome == "undecided"  # too few seeds to refute it
    assert not_worse("x", {0: 1.0}, {0: 2.0}).outcome == "undecided"


def test_shares() -> None:
    ones, some = dict.fromkeys(range(40), 1.0), {seed: float(seed % 2) for seed in range(40)}
    assert share_at_least("x", ones, some).outcome == "held"
    assert share_at_least("x", ones, ones).outcome == "held"
    assert share_at_least("x", some, ones).outcome == "not held"
    assert share_at_least("x", ones | {0: 0.0}, ones).outcome == "undecided"


def test_summary_keeps_the_seeds() -> None:
    row = summary({4: 1.0, 2: 3.0})
    assert row == {"mean": 2.0, "standard_error": 1.0, "seeds": [2, 4], "per_seed": [3.0, 1.0]}
    assert summary({0: 1.0})["standard_error"] is None


def test_the_machine_has_no_name() -> None:
    assert set(machine()) == {"processor", "cores", "memory_gb", "system"}
    assert machine()["memory_gb"] > 0 and not math.isnan(machine()["memory_gb"])
