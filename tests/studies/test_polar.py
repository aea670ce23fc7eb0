"""POLAR's study: what its rules say of made-up results, and what is read of curves."""

from __future__ import annotations

from typing import Any

import pytest

from rheostat.experiments.studies import Cell, Claim
from studies import polar


def results(gap: float) -> Any:
    """Every effect of a size, in the direction that the paper says; with noise that differs between seeds."""

    def curve(*losses: float, accuracy: float) -> dict[str, list[float]]:
        return {"steps": [0, 80, 160, 240], polar.LOSS: [0.69, *losses], "validation_preference_accuracy": [0.5] * 3 + [accuracy]}

    def found(cell: Cell) -> Any:
        noise = 0.002 * cell.arguments["seed"]
        accuracy = {"A few": 0.6 + 2 * gap + noise, "B few": 0.6 + gap / 2 + 1.5 * noise, "C few": 0.6 + 0.5 * noise}
        accuracy |= {"A many": 0.7 + noise, "B many": 0.7 + 1.5 * noise, "D": 0.6}
        policy = {"kl": [0.0, 1.0, 2.0], "steps": [0, 40, 80]}
        return {
            "zoo": {
                str(width): curve(0.6, 0.6 - gap / 4, 0.6 - gap / 2 - gap * width / 200 + noise / 10, accuracy=0.6 + gap / 2 + noise / 10)
                for width in polar.Sizes().widths
            },
            "weights": {str(width): 100 * width for width in polar.Sizes().widths},
            "accuracy": accuracy,
            "recognised": [0.7, 0.7, 0.7 + gap + noise],
            "rl": {
                "A": policy | {"validation_utility": [0.2, 0.4 + gap / 2, 0.5 + gap + noise]},
                "C": policy | {"validation_utility": [0.2, 0.4, 0.5 + 0.5 * noise]},
            },
            "imitation": 0.5 + 0.5 * noise,
        }

    return found


def verdicts(claim: Claim, gap: float) -> set[str]:
    return {condition.outcome for condition in claim.judge(results(gap)).conditions}


def test_rules_can_be_met_and_can_fail() -> None:
    claims = {claim.name: claim for claim in polar.claims(polar.Sizes())}
    for name, claim in claims.items():
        assert verdicts(claim, 0.2) == {"supported"}, name
        assert "refuted" in verdicts(claim, -0.2), name


def test_utility_is_compared_at_the_largest_kl_that_both_reach() -> None:
    arms = {
        "A": {"kl": [0.0, 4.0], "validation_utility": [0.2, 1.0]},
        "C": {"kl": [0.0, 1.0, 2.0], "validation_utility": [0.2, 0.3, 0.5]},
    }
    assert polar.at_equal_kl(arms) == {"A": pytest.approx(0.6), "C": 0.5}


def test_a_power_law_is_found_exactly() -> None:
    sizes = [10.0, 30.0, 90.0]
    assert polar.law(sizes, [0.9 * size**-0.0425 for size in sizes]) == {"exponent": 0.0425, "fit": 1.0}
    assert polar.law(sizes, [0.5, 0.5, 0.5])["fit"] == 1.0


def test_all_arms_of_a_seed_learn_on_one_world_and_none_on_another() -> None:
    cells = {cell.arguments["seed"]: cell.key for claim in polar.claims(polar.Sizes()) for cell in claim.cells}
    assert sorted(cells) == list(range(8)) and len(set(cells.values())) == 8
