"""The studies of theory: their results depend on the whole laboratory, and their rules can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rheostat.tabular
from rheostat.experiments.studies.results import load_study
from rheostat.experiments.studies.sources import source_files
from studies import agnostic_rl, realizability


@pytest.mark.parametrize("slug", ["realizability", "agnostic-rl"])
def test_cells_depend_on_the_laboratory(slug: str) -> None:
    study = load_study(slug)
    modules = {f"rheostat.tabular.{path.stem}" for path in Path(rheostat.tabular.__file__).parent.glob("*.py")} - {
        "rheostat.tabular.__init__"
    }
    for claim in study.claims(study.full):
        for cell in claim.cells:
            assert modules <= set(source_files((cell.function.split(":")[0], *cell.sources)))
    assert not study.seeded


def outcomes(conditions: list[Any]) -> list[str]:
    return [condition.outcome for condition in conditions]


def test_rules_refute_what_is_not_so() -> None:
    rng = np.random.default_rng(0)
    curved: dict[str, Any] = {"rows": [], "facts": {"slope": 1.0}}
    for x in (1.0, 2.0, 4.0, 8.0):
        row = {"amplification": x, "exact_median": x, "measured_median": x**3}
        curved["rows"].append(row | {"radius": 2.0, "fitted_q_after_100": 0.5})
    assert outcomes(realizability.amplified(curved)) == ["supported", "refuted", "supported"]
    assert outcomes(realizability.diverging(curved)) == ["refuted", "refuted", "refuted"]
    processes = [
        {"bellman_error": [1.0, 0.9, 0.85], "inherent_bellman_error": 2.0, "within_bound": True}
        | {"class_concentrability": 1.0, "concentrability": 2.0}
        for _ in range(3)
    ]
    floor = {"samples": [10, 100, 1000], "processes": processes}
    assert outcomes(realizability.vanishing(floor)) == ["refuted", "refuted", "supported", "supported"]
    assert outcomes(realizability.floored(floor)) == ["supported"]
    processes[0]["bellman_error"] = processes[1]["bellman_error"] = [1.0, 0.1, 0.01]
    assert outcomes(realizability.floored(floor)) == ["refuted"]
    rows = [{"horizon": h, "policies": n, "error": h * n + rng.random(), "pairs": 9, "bound": 8} for h in (3, 7) for n in (4, 16, 64)]
    assert outcomes(agnostic_rl.evaluated({"rows": rows})[0]) == ["refuted", "refuted", "refuted"]
    locks = {"won": {"popler": 10, "uniform": 90}, "runs": 100, "exact": {"popler": 0.5, "uniform": 0.9, "episodes": 1}}
    assert outcomes(agnostic_rl.explored(locks)[0]) == ["refuted", "refuted", "refuted", "supported"]
    gaps = {"facts": {"limit": {"complete": 0.1, "incomplete": 0.0}}, "rows": [{"complete": 0.2, "incomplete": 0.3}]}
    assert outcomes(agnostic_rl.completed(gaps)[0]) == ["refuted"] * 4
    poor = {"rows": [{"error": 0.2, "spread": 0.3, "tests": 11}]}
    assert outcomes(agnostic_rl.emulating(poor)[0]) == ["refuted"] * 3
