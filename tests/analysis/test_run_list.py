"""The list of runs: every state, progress, what the result is and since when, on 80 columns too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat.analysis.run_list import list_runs
from rheostat.cli.entry import main
from rheostat.cli.watching import age
from rheostat.errors import RheostatError
from rheostat.locks import held
from rheostat.training.run import Run
from rheostat.training.run_directory import LOCK
from tests.analysis.synthetic import write_comparison, write_run
from tests.tiny_control import small
from tests.training.test_run import StopAfter


def log(run: Path, *rows: dict[str, Any]) -> None:
    """The log of an invented run."""
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_states_of_a_run(tmp_path: Path) -> None:
    settings = small("ppo", evaluate_every=256, evaluate_episodes=2, evaluation_episodes=2)
    with pytest.raises(Exception, match="Stopped"):
        Run.create(tmp_path / "run", settings).train(progress=StopAfter(3))
    (found,) = list_runs(tmp_path)
    rows = Run.load(tmp_path / "run").metrics
    assert (found.state, found.done, found.total) == ("stopped", rows[-1]["steps"], 1000)
    assert (found.method, found.task, found.seed, found.kind) == ("ppo", "CartPole-v1", 0, "run")
    with held(tmp_path / "run" / LOCK, "it"):
        (found,) = list_runs(tmp_path)
        assert found.state == "running" and "writes it" in found.remark
    run = Run.load(tmp_path / "run").train()
    (found,) = list_runs(tmp_path / "run")
    first = next(row["evaluation_return"] for row in run.metrics if "evaluation_return" in row)
    assert (found.state, found.metric, found.result) == ("finished", "evaluation_return", run.summary["evaluation_return"])
    assert found.before == first and found.change == run.summary["evaluation_return"] - first
    log(tmp_path / "run", *({**row, "steps": row["steps"] + 1} for row in run.metrics))
    (found,) = list_runs(tmp_path)
    assert found.state == "damaged" and "metrics.jsonl" in found.remark


def test_a_lock_of_another_machine_is_not_judged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    with held(run / LOCK, "it"):
        owner = json.loads((run / LOCK).read_text())
    (run / LOCK).write_text(json.dumps(owner | {"host": "elsewhere"}))
    (found,) = list_runs(tmp_path)
    assert found.state == "unknown" and "elsewhere" in found.remark


def test_the_result_is_the_best_kind_of_number_that_is_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    log(run, {"iteration": 1, "steps": 10, "episode_return": 3.0}, {"iteration": 2, "steps": 20, "episode_return": 5.0})
    (found,) = list_runs(tmp_path)
    assert (found.metric, found.result, found.change) == ("episode_return", 5.0, None)  # training moves the policy under its own mean
    log(run, {"iteration": 0, "steps": 0, "evaluation_return": 9.0}, {"iteration": 2, "steps": 20, "episode_return": 5.0})
    (found,) = list_runs(tmp_path)
    assert (found.metric, found.result, found.change) == ("evaluation_return", 9.0, None)  # one measurement is no change
    log(run, {"iteration": 0, "steps": 0, "evaluation_return": 9.0}, {"iteration": 2, "steps": 20, "evaluation_return": 4.0})
    (found,) = list_runs(tmp_path)
    assert (found.result, found.change) == (4.0, -5.0)


@pytest.mark.parametrize("content", ["", "{}", '{"settings": 3}', '{"settings": {"method": "ppo", "task": "x", "seed": "a", "steps": 1}}'])
def test_a_damaged_configuration_is_a_line_not_an_error(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_run(tmp_path / "bad") / "config.json").write_text(content)
    write_run(tmp_path / "good")
    assert {each.name: each.state for each in list_runs(tmp_path)} == {"bad": "damaged", "good": "finished"}
    main(["runs", str(tmp_path)])
    assert f"bad: {tmp_path / 'bad' / 'config.json'} is damaged" in capsys.readouterr().out


def test_a_comparison_is_one_line_and_has_lines_of_its_own(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c")
    names = sorted(path.name for path in folder.iterdir() if (path / "config.json").exists())
    (folder / "compare.json").write_text(json.dumps({"cells": [*names, "ppo-s99"], "task": "Hopper-v5", "methods": ["ppo", "props"]}))
    (found,) = list_runs(tmp_path)
    assert (found.kind, found.state, found.done, found.total) == ("comparison", "stopped", len(names), len(names) + 1)
    assert found.method == "ppo, props"
    assert sorted(each.name for each in list_runs(folder)) == names
    (folder / names[0] / "config.json").write_text("")
    (found,) = list_runs(tmp_path)
    assert found.state == "damaged" and names[0] in found.remark
    (folder / "compare.json").write_text("[]")
    assert list_runs(tmp_path)[0].state == "damaged"


def test_the_newest_comes_first_and_other_folders_are_left_out(tmp_path: Path) -> None:
    import os

    for number, name in enumerate(("old", "new")):
        for path in write_run(tmp_path / name).iterdir():
            os.utime(path, (1000 + number, 1000 + number))
    (tmp_path / "other").mkdir()
    assert [each.name for each in list_runs(tmp_path)] == ["new", "old"]


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits(width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    write_run(tmp_path / "props-HalfCheetah-v5-s0-long", method="props", task="HalfCheetah-v5", level=123_456.0)
    write_run(tmp_path / "[red]a\x1b[2Jb", finished=False)
    main(["runs", str(tmp_path)])
    table = capsys.readouterr().out
    assert max(map(len, table.partition("Not shown")[0].splitlines())) <= width
    assert "props-HalfCheetah-v5-s0-long" in table and "[red]a<0x1b>[2Jb" in table and "\x1b" not in table
    assert ("Hopper-v5" in table) == (width == 160) and ("Not shown for want of room: result is, method, task" in table) == (width == 80)


def test_json_holds_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    main(["runs", str(tmp_path), "--json"])
    (found,) = json.loads(capsys.readouterr().out)
    assert found["directory"] == str(tmp_path / "run") and found["state"] == "finished" and found["change"] is None


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RheostatError, match="There is no folder"):
        list_runs(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    main(["runs", str(tmp_path / "empty")])
    assert capsys.readouterr().out == f"There is no run in {tmp_path / 'empty'}.\n"


def test_ages_have_one_unit() -> None:
    assert [age(seconds) for seconds in (-1, 0.2, 59, 60, 7_199, 7_200, 86_400, 864_000)] == [
        "0 s", "0 s", "59 s", "1 min", "1 h", "2 h", "1 d", "10 d",
    ]  # fmt: skip
