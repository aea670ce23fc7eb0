"""The study of N2N: its cell with controllers from a small teacher, and the direction of its rules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rheostat.experiments.studies import Cell
from rheostat.experiments.studies.training import train
from studies._n2n_cells import BEFORE, transferred
from studies.n2n import SMOKE, Sizes, claims

SIZES = replace(Sizes(), digits=True)


def test_controllers_that_have_learned_before_draw_other_networks(tmp_path: Path) -> None:
    """The small teacher's run is made first and removed at the end; from the same seed other architectures follow."""
    cells = {claim.name: claim.arms for claim in claims(SMOKE)}["transfer"]
    arguments = json.loads(json.dumps(cells["transfer"][0].arguments))
    scratch = json.loads(json.dumps(cells["N2N"][0].arguments))
    assert arguments == scratch | {"before": "small"}
    options = {"config": arguments["config"] | {"removal_learning_rate": 0.5}, "steps": 6}
    with_before = transferred(arguments | options, tmp_path)
    assert not (tmp_path / BEFORE).exists() and not (tmp_path / "run").exists()
    again = transferred(arguments | options, tmp_path)
    without = train(scratch | options, tmp_path)
    assert with_before["curve"]["reward"] == again["curve"]["reward"] != without["curve"]["reward"]
    assert set(with_before["summary"]) >= {"student_test_reward", "kept_test_accuracy", "student_compression", "student_parameters"}


def results(good: bool) -> Any:
    """Results of every cell: N2N as it is claimed to be, or not."""

    def of(cell: Cell) -> dict[str, Any]:
        arm, seed = cell.label.split(",")[0], cell.arguments["seed"]
        better = (arm in ("N2N", "transfer")) == good
        low, high = (0.2, 0.6) if good else (0.6, 0.2)
        stage = [low] * 5 + [high] * 5
        start = 0.0 if arm != "transfer" else 0.3 if good else -0.3
        small = {"student_test_reward": 0.9 if better else 0.7, "kept_test_accuracy": 0.98 if better else 0.8}
        sizes = {"student_compression": 12.0 if better else 2.0, "student_parameters": 1_000 if better else 9_000}
        noise = 0.001 * seed
        curve = [value + noise + start + (0.2 if better else 0.0) for value in stage * 2]
        return {"summary": small | sizes, "curve": {"steps": [float(step) for step in range(20)], "reward": curve}}

    return of


@pytest.mark.parametrize(("good", "verdict"), [(True, "supported"), (False, "refuted")])
def test_rules_point_where_they_should(good: bool, verdict: str) -> None:
    for claim in claims(SIZES):
        judged = claim.judge(results(good))
        outcomes = {condition.outcome for condition in judged.conditions}
        assert (outcomes == {verdict}) if good else (verdict in outcomes), (claim.name, judged.conditions)


def test_every_arm_judges_as_many_networks() -> None:
    for claim in claims(SIZES):
        for cells in claim.arms.values():
            for cell in cells.values():
                assert cell.arguments["steps"] * cell.arguments["config"]["rollouts"] == 100
