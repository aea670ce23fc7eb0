"""Figures: formats, what they hold, and refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rheostat.analysis.records import find_runs, read_record
from rheostat.errors import RheostatError
from rheostat.reporting.plots import plot_comparison, plot_run
from tests.analysis.synthetic import write_comparison, write_run


def texts(svg: Path) -> set[str]:
    """What is written in an SVG."""
    return set(re.findall(r"<text[^>]*>([^<]+)</text>", svg.read_text()))


def test_a_run_as_png(tmp_path: Path) -> None:
    picture = plot_run(write_run(tmp_path / "run"), tmp_path / "deep" / "curves.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 30_000


def test_a_run_shows_what_is_there_and_only_that(tmp_path: Path) -> None:
    words = texts(plot_run(write_run(tmp_path / "props", method="props"), tmp_path / "props.svg"))
    assert {"Episode return", "Sampling error (meter)", "Value loss", "KL of the behaviour policy", "Environment steps"} <= words
    assert "props on Hopper-v5, seed 0" in words
    assert "KL of the behaviour policy" not in texts(plot_run(write_run(tmp_path / "ppo"), tmp_path / "ppo.svg"))


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    words = texts(plot_run(write_run(tmp_path / "run", finished=False), tmp_path / "run.svg"))
    assert any("100,000 of 100,000 steps so far" in word for word in words)


def test_a_run_without_measurements(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    (run / "metrics.jsonl").write_text("")
    assert "Nothing has been measured yet." in texts(plot_run(run, tmp_path / "run.svg"))


def test_the_same_svg_twice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert plot_run(run, tmp_path / "a.svg").read_bytes() == plot_run(run, tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("axis", "label"), [("steps", "Environment steps"), ("seconds", "Wall time (s)"), ("gradient_steps", "Gradient steps")]
)
def test_a_comparison_against_any_axis(tmp_path: Path, axis: str, label: str) -> None:
    records = [read_record(path) for path in find_runs([write_comparison(tmp_path / "c", seeds=3)])]
    words = texts(plot_comparison(records, tmp_path / "c.svg", x=axis))
    assert {label, "ppo", "ppo-buffer", "props", "Effective sample size (meter)"} <= words
    assert "Hopper-v5: interquartile mean over 3 seeds, 95 % t bands" in words


def test_where_acting_begins_is_marked_if_all_share_it(tmp_path: Path) -> None:
    records = [read_record(path) for path in find_runs([write_comparison(tmp_path / "c", seeds=1)])]

    def marked(x: str = "steps") -> bool:
        return any("acting begins" in word for word in texts(plot_comparison(records, tmp_path / "c.svg", x=x)))

    assert not marked()
    for record in records:
        record.settings.update(steps=60_000, online_steps=40_000)
    assert marked() and not marked("seconds")
    records[0].settings.update(steps=50_000)
    assert not marked()


def test_one_metric_alone(tmp_path: Path) -> None:
    records = [read_record(path) for path in find_runs([write_comparison(tmp_path / "c", seeds=2)])]
    words = texts(plot_comparison(records, tmp_path / "c.svg", metric="entropy"))
    assert "Entropy" in words
    assert "Episode return" not in words


def test_refusals(tmp_path: Path) -> None:
    record = read_record(write_run(tmp_path / "run"))
    other = read_record(write_run(tmp_path / "other", task="Ant-v5"))
    with pytest.raises(RheostatError, match=r"suffixes \.png, \.svg, \.pdf"):
        plot_run(record, tmp_path / "x.bmp")
    with pytest.raises(RheostatError, match="one task, got 2"):
        plot_comparison([record, other], tmp_path / "x.png")
    with pytest.raises(RheostatError, match="Unknown axis 'secs': did you mean seconds"):
        plot_comparison([record], tmp_path / "x.png", x="secs")
    with pytest.raises(RheostatError, match="Unknown metric 'entropi': did you mean entropy"):
        plot_comparison([record], tmp_path / "x.png", metric="entropi")
    with pytest.raises(RheostatError, match="There is no run in"):
        plot_run(tmp_path, tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(RheostatError, match="Could not write the picture"):
        plot_run(record, tmp_path / "file" / "x.png")
