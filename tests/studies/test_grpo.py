"""The rules of the GRPO study on numbers with known answers, and that measuring changes nothing."""

from __future__ import annotations

import json

from rheostat.experiments.studies import verdict
from studies._grpo_cells import build, kept_groups, look
from studies.grpo import SMOKE, alike, arms, gains, kept_as_expected, one_p


def test_looking_changes_nothing() -> None:
    arguments = arms(SMOKE)["dapo"][0].arguments
    method = build(arguments)
    before = json.dumps(method.context.collector.state_dict(), default=str)
    first, again = look(method, 8), look(method, 8)
    measured = kept_groups(method, 3, 4)
    assert first == again and json.dumps(method.context.collector.state_dict(), default=str) == before
    assert measured["kept"] == [0, 0, 0] and measured["expected"] == [0.0, 0.0, 0.0]


def test_gain() -> None:
    start = {"grpo": [0.40, 0.42, 0.38], "rft": [0.40, 0.42, 0.38]}
    better, little = gains(start, {"grpo": [0.9, 0.92, 0.93], "rft": [0.41, 0.44, 0.40]})
    assert (better.outcome, little.outcome) == ("held", "not held")
    assert gains({"grpo": [0.4, 0.4, 0.4]}, {"grpo": [0.9, 0.9, 0.45]})[0].outcome == "undecided"
    assert verdict([better, little]) == "not held"


def test_alike() -> None:
    assert alike({"grpo": [0.90, 0.94, 0.92], "rloo": [0.93, 0.91, 0.92]}).outcome == "held"
    apart = alike({"grpo": [0.90, 0.91, 0.92], "rloo": [0.60, 0.61, 0.62]})
    assert apart.outcome == "not held" and apart.numbers["told_apart"] == ["GRPO - RLOO"]
    assert alike({"grpo": [0.90, 0.95, 0.85], "rloo": [0.82, 0.88, 0.80]}).outcome == "undecided"
    assert alike({"grpo": [0.9], "rloo": [0.1]}).outcome == "undecided"


def test_kept_groups_against_the_formula() -> None:
    fair = {"kept": [1, 0] * 50, "expected": [0.5] * 100, "right": [0.5] * 100}
    biased = {"kept": [1] * 100, "expected": [0.8] * 50 + [0.7] * 50, "right": [0.5] * 100}
    nothing = {"kept": [0] * 9, "expected": [0.0] * 9, "right": [0.0] * 9}
    assert kept_as_expected("start", [fair]).outcome == "held"
    assert kept_as_expected("start", [biased]).outcome == "not held"
    assert kept_as_expected("start", [nothing]).outcome == "undecided"


def test_one_p_for_all_prompts() -> None:
    rows = [
        {"reward": 0.5, "informative_share": 0.5, "sampling_rounds": 1},
        {"reward": 0.1, "informative_share": 0.1, "sampling_rounds": 3},
    ]
    found = one_p([{"updates": rows}], 2)
    assert found == {"kept_in_training": 0.3, "rounds_per_update": 2.0, "kept_in_single_rounds": 0.5, "formula_with_one_p": 0.5}
