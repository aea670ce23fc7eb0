"""The joint study's rules and pictures on made-up runs: what is read off where, and what is told of it. Nothing is trained."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from rheostat.experiments.studies import jobs as cells_module
from rheostat.experiments.studies.results import write_result
from rheostat.experiments.studies.study import report_of
from studies import joint

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"


@pytest.fixture(autouse=True)
def no_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code behind a made-up cell does not matter."""
    monkeypatch.setattr(cells_module, "code_hash", lambda roots: "")


def run(final: float, learner_tokens: float, *, late: bool = False) -> dict[str, Any]:
    """A run whose accuracy rises linearly to its end, or jumps there."""
    steps = list(range(1, 11))
    accuracy = [final * (step == 10 if late else step / 10) for step in steps]
    curve = {"steps": steps, "generated_tokens": steps, "learner_tokens": [learner_tokens * step / 10 for step in steps]}
    return {"final": final, "curve": {name: list(map(float, values)) for name, values in (curve | {"accuracy": accuracy}).items()}}


def result_of(values: dict[str, tuple[float, float]], seeds: int = 8) -> dict[str, Any]:
    """The study's result when an arm ends with (accuracy, learner tokens); arms that are not named end at (0.5, 100)."""
    sizes = dataclasses.replace(joint.SMOKE, seeds=seeds)
    claims = joint.claims(sizes)
    records = {}
    for arm, cells in claims[0].arms.items():
        final, tokens = values.get(arm, (0.5, 100.0))
        for seed, cell in cells.items():
            records[cell.key] = {"result": run(final + 0.001 * seed, tokens)}
    reports = [report_of(claim, records) for claim in claims]
    source = {"date": "2026-01-01", "commit": "0" * 40}
    return {
        "study": "joint",
        "claims": reports,
        "provenance": source,
        "content": "",
        "declaration": {},
        "verdicts": {one["name"]: one["verdict"] for one in reports},
    }


def test_a_curve_is_read_over_the_last_fifth_of_the_common_tokens() -> None:
    assert joint.read_off(run(1.0, 100.0)["curve"], 100.0) == pytest.approx(0.9)
    assert joint.read_off(run(1.0, 200.0)["curve"], 100.0) == pytest.approx(0.45)  # twice the tokens for the same way


def test_budgets_can_disagree() -> None:
    """An arm that is better for the same generated tokens with four times the learner tokens is worse at equal learner tokens."""
    found = result_of({"BAPO": (0.7, 400.0), "SFT": (0.7, 100.0)})
    first, bapo = found["claims"][0]["metrics"], next(claim for claim in found["claims"] if claim["name"] == "BAPO")
    assert [condition["outcome"] for condition in bapo["conditions"]] == ["supported", "refuted"]
    assert found["verdicts"]["SFT"] == "supported"
    assert first["common learner tokens"]["mean"] == 100.0 and set(bapo["arms"]) == {"BAPO", "GRPO"}
    assert first["cannot be told from the best"] == {"generated tokens": ["SFT", "BAPO"], "learner tokens": ["SFT"]}
    assert found["verdicts"]["best"] == "no relevant difference" and found["verdicts"]["window"] == "no relevant difference"


def test_the_best_is_better_than_all_others() -> None:
    found = result_of({"RL-PLUS": (0.9, 100.0), "CHORD-mu": (0.8, 100.0), "CHORD-phi": (0.8, 100.0)})
    assert found["verdicts"]["best"] == "supported" and found["verdicts"]["stages"] == "supported"
    assert all("RL-PLUS (highest mean)" in one["rule"] for one in found["claims"][-1]["conditions"])


def test_picture_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HOOKS))
    evidence = importlib.import_module("evidence")
    assert "rheostat study joint" in evidence.mixtures(tmp_path / "none.json")
    found = result_of({"BAPO": (0.7, 400.0), "SFT": (0.7, 100.0)})
    path = write_result(joint.STUDY, found, tmp_path)
    joint.draw(found, path.with_suffix(".png"))
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    table = evidence.mixtures(path)
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if line.startswith("|")}
    assert len(rows) == 2 + 11 and "supported / refuted" in rows["BAPO"] and rows["SFT"].rstrip("| ").endswith("supported")
    assert "0.704 ± 0.001 \\*" in rows["SFT"] and "400" in rows["BAPO"] and "results/joint.png" in table
