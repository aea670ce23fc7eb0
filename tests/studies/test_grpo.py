"""The GRPO study in its smoke form, and its rules on numbers with known answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studies._cells import compute
from studies._evidence import verdict
from studies._grpo_cells import build, kept_groups, look
from studies.grpo import ARMS, SMOKE, alike, arms, gains, kept_as_expected, one_p, run
from studies.props import compact


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All cells of the smoke form, computed in this process, and the study made from them."""
    folder = tmp_path_factory.mktemp("cells")
    for seeds in arms(SMOKE).values():
        for cell in seeds.values():
            compute(cell, folder, cell.key)
    return folder, run(SMOKE, folder, say=lambda line: None)


def test_the_smoke_form_has_everything_the_study_has(smoke: tuple[Path, dict[str, Any]]) -> None:
    study = json.loads(compact(smoke[1]), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(study["arms"]) == list(study["curves"]) == list(ARMS.values())
    assert [claim["name"] for claim in study["claims"]] == ["gain", "alike", "alike, six", "kept"]
    assert study["provenance"]["cells"] == 12
    for curves in study["curves"].values():
        assert len(curves) == SMOKE.seeds
        for curve in curves:
            assert curve["tokens"][0] == 0 and curve["tokens"][-1] >= SMOKE.tokens
            assert len(curve["tokens"]) == len(curve["accuracy"]) == len(curve["entropy"]) == len(curve["length"])


def test_groups_that_were_discarded_are_paid_for(smoke: tuple[Path, dict[str, Any]]) -> None:
    arms_ = smoke[1]["arms"]
    assert arms_["DAPO"]["updates"]["mean"] < arms_["GRPO"]["updates"]["mean"]
    assert arms_["DAPO"]["tokens"]["mean"] >= SMOKE.tokens
    assert smoke[1]["kept_besides"]["rounds_per_update"] == 10  # the untrained model is never right: nothing to keep


def test_the_study_is_drawn(smoke: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from studies._grpo_report import draw, table

    draw(smoke[1], tmp_path / "grpo.png")
    assert (tmp_path / "grpo.png").read_bytes().startswith(b"\x89PNG")
    table(smoke[1])
    assert "REINFORCE++" in capsys.readouterr().out


def test_looking_changes_nothing() -> None:
    arguments = arms(SMOKE)["dapo"][0].arguments
    method = build(arguments)
    before = json.dumps(method.collector.state_dict(), default=str)
    first, again = look(method, 8), look(method, 8)
    measured = kept_groups(method, 3, 4)
    method.collector.parity_checked = False  # the gate opens at the first sample of any kind
    assert first == again and json.dumps(method.collector.state_dict(), default=str) == before
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
