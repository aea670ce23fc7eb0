"""Every study in its smoke form: cells, rules, result, picture and report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rheostat.analysis.verdict import OUTCOMES
from rheostat.experiments.studies.results import FORMAT, load_study, pilot_path, read_result, result_path, run_study, standing, study_names
from rheostat.experiments.studies.study import check
from rheostat.json_text import unsigned
from rheostat.reporting.report import write_report
from rheostat.reporting.study_figures import draw_into

LONG = ("acereason", "grpo", "joint", "lag", "props", "repair", "online-offline-gap", "polar", "suboptimal-onpolicy-prefs")
"""Many arms: these run every night."""


@pytest.mark.parametrize("slug", [pytest.param(slug, marks=pytest.mark.slow if slug in LONG else ()) for slug in study_names()])
def test_smoke(slug: str, tmp_path: Path) -> None:
    study = load_study(slug)
    done = run_study(study, draw=draw_into, smoke=True, jobs=0, cells=tmp_path / "cells")
    result = json.loads(done.path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert unsigned(result) == read_result(done.path) | {"format": FORMAT} == json.loads(json.dumps(done.result)) | {"format": FORMAT}
    assert result["form"] == "smoke" and result["study"] == slug and not done.left_out
    declared = study.claims(study.smoke)
    assert [claim["name"] for claim in result["claims"]] == [claim.name for claim in declared]
    for claim in result["claims"]:
        assert claim["verdict"] in OUTCOMES and claim["rule"] and claim["setting"] and claim["published"]
    assert result["provenance"]["cells"] == len(list((tmp_path / "cells").glob("*/result.json")))
    assert done.path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    page = write_report([done.path], tmp_path / "report.html").read_text()
    assert "which proves nothing" in page and study.system in page
    again = run_study(study, draw=draw_into, smoke=True, jobs=0, cells=tmp_path / "cells")
    assert {**again.result, "provenance": None} == {**done.result, "provenance": None}


@pytest.mark.parametrize("slug", [slug for slug in study_names() if result_path(slug).exists()])
def test_committed_results_can_be_read(slug: str) -> None:
    assert standing(load_study(slug)).code in ("current", "other code", "none")
    for path in (result_path(slug), pilot_path(result_path(slug).parent, slug)):
        assert not path.exists() or all(claim["verdict"] in OUTCOMES for claim in read_result(path)["claims"])


@pytest.mark.parametrize("slug", study_names())
def test_seeds_follow_the_pilot_and_margins_are_declared(slug: str) -> None:
    """Pilots have seeds of their own, in every cell, and every study says which differences matter."""
    study = load_study(slug)
    if not study.seeded:
        return
    for pilot, first in ((True, 1000), (False, study.sizes().first_seed)):  # seeds that were looked at before are left out
        claims = study.claims(study.sizes(pilot=pilot))
        check(study, claims, pilot=pilot)
        for claim in claims:
            if claim.seeded:
                assert all(min(cells) == first for cells in claim.arms.values()), claim.name
                assert all(cell.arguments["seed"] == seed for cells in claim.arms.values() for seed, cell in cells.items()), claim.name
    assert any(claim.margins for claim in claims) and all(margin > 0 for claim in claims for margin in claim.margins.values())
