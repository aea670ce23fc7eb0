"""The map of a fleet's run: drawn with the run, in its report, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

import rheostat
from rheostat.api import settings_for
from rheostat.errors import RheostatError
from rheostat.reporting.fleet_map import FILE, described, draw_map, map_section
from rheostat.training.run import Run
from tests.methods.test_ospo import OPTIONS


def test_a_run_has_its_map_in_the_report(tmp_path: Path) -> None:
    run = rheostat.train("ospo", "city", directory=tmp_path / "run", **OPTIONS)
    picture = (tmp_path / "run" / FILE).read_bytes()
    assert "minute 0: 6 of 6 vehicles free" in described(picture)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2 id=" in page and ">Map</h2>" in page and "image/svg+xml" in page and "vehicles free" in page
    again = draw_map(run)
    assert again is not None and again.read_bytes() == picture
    assert rheostat.load(tmp_path / "run").evaluate(2) == run.evaluate(2)


def test_a_picture_that_says_nothing_or_is_damaged(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    section = map_section(tmp_path)
    assert section is not None and "without a description" in section.body
    (tmp_path / FILE).write_text("<svg>&")
    assert described((tmp_path / FILE).read_bytes()) == "the picture is damaged"


def test_other_runs_have_no_map(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", settings_for("ppo", "CartPole-v1", hidden=(4,)))
    assert draw_map(run) is None and map_section(tmp_path) is None


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    run = Run(tmp_path / "nowhere", settings_for("ospo", "city", **OPTIONS))
    with pytest.raises(RheostatError, match="Could not write the picture"):
        draw_map(run)
