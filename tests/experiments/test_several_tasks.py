"""Comparisons on several tasks: one scale, the house's statistics, one table, and going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rheostat
from rheostat.analysis.shares import probability_of_improvement
from rheostat.analysis.statistics import interval_of, iqm
from rheostat.cli.entry import main, parse
from rheostat.errors import RheostatError
from rheostat.experiments.comparison import load_comparison
from rheostat.experiments.several_tasks import SeveralTasks, compare_on
from rheostat.reporting.tables import show
from rheostat.reporting.task_profiles import write_tasks
from tests.analysis.synthetic import write_run

LEVELS = {"Hopper-v5": 1000.0, "Walker2d-v5": 10.0}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SeveralTasks:
    """PPO and a better PROPS on two tasks of very different scale, eight seeds each."""
    where = tmp_path_factory.mktemp("tasks")
    comparisons = {}
    for task, level in LEVELS.items():
        names = []
        for method, gain in (("ppo", 1.0), ("props", 1.6)):
            for seed in range(8):
                names.append(f"{method}-s{seed}")
                write_run(where / task / names[-1], method=method, task=task, seed=seed, level=gain * level, rows=10)
        manifest = {"task": task, "methods": ["ppo", "props"], "cells": names, "settings": {}, "seeds": 8}
        (where / task / "compare.json").write_text(json.dumps(manifest))
        comparisons[task] = load_comparison(where / task)
    return SeveralTasks(where, comparisons)


def test_scores_are_on_one_scale_and_statistics_are_the_house_s(found: SeveralTasks) -> None:
    for task in LEVELS:
        values = [score for method in found.methods for score in found.scores[method][task].values()]
        assert min(values) == 0 and max(values) == 1 and len(values) == 16
    ppo, props = found.rows
    strata = {method: {task: list(own.values()) for task, own in found.scores[method].items()} for method in found.methods}
    assert props.score == interval_of(strata["props"], iqm)
    assert props.probability == probability_of_improvement(strata["props"], strata["ppo"])
    assert ppo.probability is None and ppo.verdict is None
    assert props.verdict is not None and props.verdict.outcome == "supported" and props.verdict.seeds == 8
    expected = np.mean([[found.scores["props"][task][seed] - found.scores["ppo"][task][seed] for seed in range(8)] for task in LEVELS])
    assert props.verdict.difference.estimate == pytest.approx(expected)
    assert props.by_task["Walker2d-v5"] == interval_of(list(found.finals["props"]["Walker2d-v5"].values()), iqm)


def test_profiles_fall_from_one_to_zero(found: SeveralTasks) -> None:
    better, worse = found.profile("props"), found.profile("ppo")
    assert better is not None and worse is not None
    for profile in (better, worse):
        assert (np.diff(profile.estimate) <= 0).all() and profile.estimate[-1] == 0
    assert (better.estimate >= worse.estimate).all()


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits(width: int, found: SeveralTasks, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show(found)
    said = capsys.readouterr().out
    table, rest = said.partition("┏")[2].rpartition("┘")[::2]
    assert max(map(len, table.splitlines())) <= width and "props" in table and "better" in table
    assert ("Not shown for want of room: Hopper-v5, Walker2d-v5." in rest) == (width == 80)


def test_the_page_has_the_table_and_the_profiles(found: SeveralTasks) -> None:
    write_tasks(found)
    page = (found.directory / "report.html").read_text()
    assert "Over all tasks" in page and "data:image/png;base64," in page and "Walker2d-v5" in page
    assert (found.directory / "profiles.svg").stat().st_size > 1_000
    rows = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert rows[1]["verdict"] == "supported" and set(rows[1]["tasks"]) == set(LEVELS)


def test_seeds_that_are_missing_on_one_task_are_not_matched(found: SeveralTasks, tmp_path: Path) -> None:
    (found.directory / "Hopper-v5" / "props-s3" / "summary.json").rename(tmp_path / "kept")
    try:
        less = SeveralTasks(found.directory, {task: load_comparison(found.directory / task) for task in LEVELS})
        verdict = less.rows[1].verdict
        assert verdict is not None and verdict.seeds == 3 and verdict.outcome == "undecided"
    finally:
        (tmp_path / "kept").rename(found.directory / "Hopper-v5" / "props-s3" / "summary.json")


SMALL: dict[str, Any] = {
    "seeds": 1,
    "steps": 128,
    "jobs": 2,
    "progress": False,
    "num_envs": 2,
    "batch_steps": 64,
    "minibatches": 2,
    "hidden": [8],
}


def test_two_tasks_and_a_changed_setting_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # no column is left out
    where = tmp_path / "c"
    words = [
        "compare",
        "ppo",
        "ppo:clip=0.1",
        "--task",
        "CartPole-v1",
        "Acrobot-v1",
        "--seeds",
        "1",
        "--steps",
        "128",
        "--directory",
        str(where),
    ]
    options = ["--options", "num_envs", "2", "batch_steps", "64", "minibatches", "2", "hidden", "[8]"]
    main([*words, *options, "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == ["ppo", "ppo:clip=0.1"] and set(rows[0]["tasks"]) == {"CartPole-v1", "Acrobot-v1"}
    assert parse(json.loads((where / "tasks.json").read_text())["command"].split()[1:]).task == ("CartPole-v1", "Acrobot-v1")
    main(["resume", str(where)])
    assert "P(better than ppo)" in capsys.readouterr().out
    main(["runs", str(tmp_path), "--json"])
    assert {run["name"] for run in json.loads(capsys.readouterr().out)} == {"c/CartPole-v1", "c/Acrobot-v1"}
    with pytest.raises(RheostatError, match="compares on Acrobot-v1 too"):
        compare_on(["ppo", "ppo:clip=0.1"], ["CartPole-v1", "MountainCar-v0"], directory=where, **SMALL)


def test_what_cannot_be_compared_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    for tasks, options, words in (
        (["CartPole-v1", "CartPole-v1"], {}, "different tasks"),
        (["CartPole-v1", "Acrobot-v1"], {"margin": 3.0}, "has the unit of one task"),
        (["CartPole-v1", "NoSuchTask-v1"], {}, "NoSuchTask-v1"),
    ):
        with pytest.raises(RheostatError, match=words):
            rheostat.compare(["ppo", "a2c"], tasks, directory=tmp_path / "c", **SMALL | options)
        assert not list(tmp_path.iterdir())  # not even the directory of the task that would have worked
