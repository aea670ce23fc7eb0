"""Conditions: what is supported, refuted and undecided, and how claims follow from them."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from rheostat.analysis.verdict import OUTCOMES, Outcome, at_once
from rheostat.errors import RheostatError
from rheostat.experiments.studies.rules import (
    Condition,
    above,
    alike,
    better,
    exact,
    family_p,
    majority,
    not_worse,
    smaller,
    summary,
    verdict,
    within,
)
from rheostat.experiments.studies.sources import machine

LOW = {seed: 1.0 + 0.01 * seed for seed in range(8)}
HIGH = {seed: 2.0 + 0.02 * seed for seed in range(8)}
MIXED = {seed: 1.0 + (-1) ** seed * 0.3 for seed in range(8)}


def test_a_claim_needs_every_condition() -> None:
    supported, refuted, same, open_, untestable = (
        Condition("", outcome) for outcome in ("supported", "refuted", "no relevant difference", "undecided", "not testable here")
    )
    assert verdict([supported, supported]) == "supported"
    assert verdict([supported, open_]) == "undecided"
    assert verdict([supported, same, open_]) == "no relevant difference"
    assert verdict([supported, open_, same, refuted]) == "refuted"
    assert verdict([supported, untestable]) == "not testable here"
    assert verdict([]) == "undecided"
    assert set(OUTCOMES) == set(get_args(Outcome))


def test_a_ratio_is_judged_against_its_factor() -> None:
    condition = smaller("x", LOW, HIGH)
    assert condition.outcome == "supported"
    assert condition.numbers["ratio"] == pytest.approx(0.5, rel=1e-3)  # the geometric mean of paired ratios
    assert condition.numbers["low"] <= condition.numbers["ratio"] <= condition.numbers["high"] < 1
    assert smaller("x", LOW, HIGH, factor=0.6).outcome == "supported" and smaller("x", LOW, HIGH, factor=0.6).numbers["margin"] == 0.6
    assert smaller("x", LOW, HIGH, factor=0.4).outcome == "refuted"
    assert smaller("x", HIGH, LOW).outcome == "refuted"
    nearly = {seed: value * (1.02 + 0.001 * seed) for seed, value in LOW.items()}
    assert smaller("x", LOW, nearly, margin=1.1).outcome == "no relevant difference"


def test_noise_and_few_seeds_are_undecided() -> None:
    noise = smaller("x", MIXED, dict.fromkeys(MIXED, 1.0))
    assert noise.outcome == "undecided" and (noise.numbers["look"], noise.numbers["next_look"]) == (8, 12)
    few = better("x", {s: HIGH[s] for s in range(3)}, {s: LOW[s] for s in range(3)})
    assert few.outcome == "undecided" and (few.numbers["look"], few.numbers["next_look"], few.numbers["p_value"]) == (None, 8, None)
    assert few.numbers["low"] < few.numbers["difference"] < few.numbers["high"]  # a pilot shows its intervals


def test_ratios_of_nothing_are_refused() -> None:
    with pytest.raises(RheostatError, match="Seed 2"):
        smaller("x", LOW | {2: 0.0}, HIGH)


def test_better_by_more() -> None:
    assert better("x", HIGH, LOW, by=0.5).outcome == "supported" and better("x", HIGH, LOW, by=0.5).numbers["margin"] == 0.5
    assert better("x", HIGH, LOW, by=2.0).outcome == "refuted"
    assert better("x", HIGH, LOW, margin=5.0).outcome == "no relevant difference"
    numbers = better("x", HIGH, LOW).numbers
    assert numbers["improvement"].startswith("1 [0.") and numbers["iqm"].startswith("1.03 [0.98") and numbers["margin"] is None


def test_not_worse_needs_its_margin_and_enough_seeds() -> None:
    lower = {seed: value - 0.1 - 0.01 * seed for seed, value in HIGH.items()}
    assert not_worse("x", lower, HIGH, margin=0.5).outcome == "supported"
    assert not_worse("x", lower, HIGH, margin=0.01).outcome == "refuted"
    six = {seed: HIGH[seed] for seed in range(6)}
    assert not_worse("x", six, six, margin=0.5).outcome == "undecided"  # which one standard error used to allow


def test_likeness_and_bounds() -> None:
    assert alike("x", MIXED, dict.fromkeys(MIXED, 1.0), margin=0.5).outcome == "supported"
    assert alike("x", LOW, HIGH, margin=0.5).outcome == "refuted"
    inside = above("x", HIGH, 1.0)
    assert inside.outcome == "supported" and inside.numbers["estimate"] == pytest.approx(2.07) and inside.rule == "x: above 1"
    assert above("x", LOW, 1.5).outcome == "refuted" and above("x", MIXED, 1.0).outcome == "undecided"
    assert within("x", HIGH, 1.0, 3.0).outcome == "supported" and within("x", HIGH, 3.0, 4.0).outcome == "refuted"


def test_more_than_half() -> None:
    true, half = dict.fromkeys(range(8), True), {seed: seed % 2 == 0 for seed in range(8)}
    assert majority("x", true).outcome == "supported" and majority("x", true).numbers["estimate"] == 1.0
    assert majority("x", dict.fromkeys(range(8), False)).outcome == "refuted"
    assert majority("x", half).outcome == "undecided" and majority("x", true | {0: False}).outcome == "undecided"


def test_what_is_computed_is_not_tested() -> None:
    found = exact("x", 1 < 2, left=1.0, right=2)
    assert (found.outcome, found.numbers) == ("supported", {"left": 1.0, "right": 2})
    assert exact("x", False).outcome == "refuted" and family_p([found]) is None


def test_p_values_of_claims() -> None:
    strong, weak = better("x", HIGH, LOW), better("x", MIXED, dict.fromkeys(MIXED, 1.0))
    assert family_p([strong]) == pytest.approx(2 / 256 * 0.05 / 0.0172, rel=1e-4)
    assert family_p([strong, weak]) == family_p([weak])  # both must be true: the larger one
    assert family_p([strong, better("x", LOW, HIGH)]) == pytest.approx(2 * 2 / 256 * 0.05 / 0.0172, rel=1e-4)
    ones, some = dict.fromkeys(range(40), 1.0), {seed: float(seed % 2) for seed in range(40)}
    single = better("x", ones, some, rule=at_once(40))
    assert family_p([single]) == pytest.approx(single.numbers["p_value"], rel=1e-4)  # one look: nothing to adjust for


def test_summary_keeps_the_seeds() -> None:
    row = summary({4: 1.0, 2: 3.0})
    assert row == {"mean": 2.0, "standard_error": 1.0, "seeds": [2, 4], "per_seed": [3.0, 1.0]}
    assert summary({0: 1.0})["standard_error"] is None


def test_the_machine_has_no_name() -> None:
    assert set(machine()) == {"processor", "cores", "memory_gb", "system"}
    assert machine()["memory_gb"] > 0 and not math.isnan(machine()["memory_gb"])
