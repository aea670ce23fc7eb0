"""The rules of the GRPO study on numbers with known answers, and that measuring changes nothing."""

from __future__ import annotations

import json

from rheostat.experiments.studies import verdict
from studies._grpo_cells import build, kept_groups, look
from studies.grpo import SMOKE, arms, gains, kept_as_expected, one_p, same


def test_looking_changes_nothing() -> None:
    arguments = arms(SMOKE)["dapo"][0].arguments
    method = build(arguments)
    before = json.dumps(method.context.collector.state_dict(), default=str)
    first, again = look(method, 8), look(method, 8)
    measured = kept_groups(method, 3, 4)
    assert first == again and json.dumps(method.context.collector.state_dict(), default=str) == before
    assert measured["kept"] == [0, 0, 0] and measured["expected"] == [0.0, 0.0, 0.0]


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(value + 0.001 * (seed % 3) for seed, value in enumerate(values)))


def test_gain() -> None:
    start = {"grpo": by_seed(*[0.4] * 8), "rft": by_seed(*[0.4] * 8)}
    better, little = gains(start, {"grpo": by_seed(*[0.9, 0.92] * 4), "rft": by_seed(*[0.41, 0.44] * 4)})
    assert (better.outcome, little.outcome) == ("supported", "refuted")
    assert verdict([better, little]) == "refuted"
    few = gains({"grpo": by_seed(0.4, 0.4, 0.4)}, {"grpo": by_seed(0.9, 0.9, 0.9)})
    assert few[0].outcome == "undecided" and few[0].numbers["next_look"] == 8


def test_alike() -> None:
    (close,) = same({"grpo": by_seed(*[0.90, 0.91] * 4), "rloo": by_seed(*[0.91, 0.90] * 4)})
    assert close.outcome == "supported" and close.rule == "accuracy of GRPO and RLOO: differ by less than 0.03"
    (apart,) = same({"grpo": by_seed(*[0.90, 0.91] * 4), "rloo": by_seed(*[0.60, 0.61] * 4)})
    assert apart.outcome == "refuted"
    (wide,) = same({"grpo": by_seed(*[0.90, 0.95, 0.85, 0.9] * 2), "rloo": by_seed(*[0.82, 0.95, 0.88, 0.9] * 2)})
    assert wide.outcome == "undecided"
    assert len(same({name: by_seed(*[0.9] * 8) for name in ("grpo", "rloo", "dapo", "gspo")})) == 6


def test_kept_groups_against_the_formula() -> None:
    def measured(kept: float, expected: float) -> dict[int, dict[str, list[float]]]:
        return {seed: {"kept": [kept + 0.001 * seed, kept], "expected": [expected] * 2} for seed in range(8)}

    assert kept_as_expected("start", measured(0.5, 0.505)).outcome == "supported"
    assert kept_as_expected("start", measured(1.0, 0.75)).outcome == "refuted"
    assert kept_as_expected("start", {0: {"kept": [1.0], "expected": [1.0]}}).outcome == "undecided"


def test_one_p_for_all_prompts() -> None:
    rows = [
        {"reward": 0.5, "informative_share": 0.5, "sampling_rounds": 1},
        {"reward": 0.1, "informative_share": 0.1, "sampling_rounds": 3},
    ]
    found = one_p([{"updates": rows}], 2)
    assert found == {"kept_in_training": 0.3, "rounds_per_update": 2.0, "kept_in_single_rounds": 0.5, "formula_with_one_p": 0.5}
