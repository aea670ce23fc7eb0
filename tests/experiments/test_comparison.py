"""Comparisons: real workers on a small task, stopped, resumed, extended; and everything that is refused before any work begins."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rheostat.analysis.records import find_runs
from rheostat.api import compare, settings_for, show
from rheostat.errors import RheostatError
from rheostat.experiments import comparison, display, grid, worker
from rheostat.experiments.comparison import ComparisonInterrupted, load_comparison, plan
from rheostat.experiments.display import GridBar, Quiet
from rheostat.experiments.grid import Grid, GridRun
from rheostat.reporting.plots import plot_comparison
from rheostat.reporting.report import write_report
from rheostat.training.run import Run
from rheostat.training.settings import Settings
from tests.analysis.synthetic import write_run
from tests.crash import PATIENCE

SMALL: dict[str, Any] = {"steps": 256, "num_envs": 4, "batch_steps": 64, "evaluation_episodes": 2, "hidden": (8,)}


def metrics(directory: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(directory.glob("*/metrics.jsonl"))}


class StopAt(Quiet):
    """Presses Ctrl-C once the grid has come so far."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def start(self, runs: Sequence[GridRun], jobs: int) -> None:
        self.runs = runs

    def update(self) -> None:
        if self.steps and sum(run.steps for run in self.runs) >= self.steps:
            self.steps = 0
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("method", "task", "steps"), [("ppo", "CartPole-v1", 100_000), ("grpo", "chain-sum", 100)])
def test_runs_side_by_side_have_the_usual_budget_and_one_thread_each(
    method: str, task: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "read_manifest", lambda where: {})  # builds no run
    for given, threads in (({}, 1), ({"threads": 3}, 3)):
        (planned,), _, command = plan([method], task, seeds=1, steps=None, directory=tmp_path / str(threads), **given)
        assert (planned.settings.steps, planned.settings.threads) == (steps, threads) and f"--steps {steps} " in command


@pytest.mark.usefixtures("workers_here")
def test_a_comparison_from_beginning_to_end_and_extended(tmp_path: Path) -> None:
    where = tmp_path / "c"
    first = compare(["ppo", "a2c"], "CartPole-v1", seeds=1, directory=where, progress=False, **SMALL)
    assert [row["method"] for row in first.rows()] == ["ppo", "a2c"]
    assert first.rows()[1]["verdict"] == "undecided"
    assert (first.rows()[1]["look"], first.rows()[1]["next_look"], first.rows()[1]["p_value"]) == (None, 8, None)
    assert json.loads((where / "results.json").read_text()) == first.rows()
    assert (where / "curves.png").exists()
    assert (where / "report.html").exists()
    before = metrics(where)
    again = compare(["ppo", "a2c"], "CartPole-v1", seeds=2, directory=where, progress=False, **SMALL)
    after = metrics(where)
    assert list(after) == ["a2c-s0", "a2c-s1", "ppo-s0", "ppo-s1"]
    assert {name: after[name] for name in before} == before  # finished runs are kept
    assert [row["seeds"] for row in again.rows()] == [2, 2]
    assert [record.settings["steps"] for record in again.records] == [256] * 4  # equal budgets
    assert all(record.command.startswith("rheostat compare ppo a2c --task CartPole-v1 --seeds") for record in again.records)
    assert [path.name for path in find_runs([where])] == ["ppo-s0", "ppo-s1", "a2c-s0", "a2c-s1"]  # the reference first
    assert load_comparison(where).rows() == again.rows()


def test_ctrl_c_saves_everything_and_resuming_changes_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    options = SMALL | {"steps": 30_000, "batch_steps": 256, "num_envs": 16, "epochs": 1, "minibatches": 2}
    with pytest.raises(ComparisonInterrupted, match="Continue with: rheostat compare ppo --task CartPole-v1 --seeds 2"):
        compare(["ppo"], "CartPole-v1", seeds=2, jobs=2, directory=tmp_path / "cut", progress=StopAt(1000), **options)
    stopped = {name: len(text.splitlines()) for name, text in metrics(tmp_path / "cut").items()}
    assert stopped
    assert all(0 < rows < 30_000 // 256 for rows in stopped.values())
    request.getfixturevalue("workers_here")
    compare(["ppo"], "CartPole-v1", seeds=2, directory=tmp_path / "cut", progress=False, **options)
    for seed in range(2):  # never interrupted
        Run.create(tmp_path / "whole" / f"ppo-s{seed}", settings_for("ppo", "CartPole-v1", seed=seed, **options)).train().close()
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_a_crashed_cell_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    good = comparison.plan(["ppo"], "CartPole-v1", seeds=1, directory=tmp_path / "c", **SMALL)[0][0]
    bad = GridRun("ppo-bad", "ppo", tmp_path / "c" / "ppo-bad", dataclasses.replace(good.settings, task="NoSuchTask-v0"))
    quiet = Quiet()
    assert Grid([bad, good], 2, tmp_path / "c" / "logs", "rheostat compare", quiet).run()
    assert (bad.state, good.state) == ("failed", "finished")
    assert "NoSuchTask-v0" in bad.error
    assert quiet.notes == [f"ppo-bad failed: {bad.error}"]


def test_when_everything_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(grid: Grid) -> bool:
        for run in grid.runs:
            run.state, run.error = "failed", "no memory left"
        return True

    monkeypatch.setattr(Grid, "run", crash)
    with pytest.raises(RheostatError, match=r"Every run failed, the first one \(ppo-s0\) with: no memory left"):
        compare(["ppo"], "CartPole-v1", seeds=2, directory=tmp_path / "c", progress=False, **SMALL)


def test_a_worker_does_not_outlive_its_parent(tmp_path: Path) -> None:
    """When the pipe from the parent closes, whatever ended it, the worker saves itself."""
    settings = plan(["ppo"], "CartPole-v1", seeds=1, directory=tmp_path / "c", **SMALL | {"steps": 10_000_000})[0][0].settings
    run = tmp_path / "run"
    job = {"directory": str(run), "settings": settings.to_json(), "command": "rheostat compare", "lock": str(tmp_path / "lock")}
    process = subprocess.Popen([sys.executable, "-m", "rheostat.experiments.worker"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write((json.dumps(job) + "\n").encode())
    process.stdin.flush()
    while grid.last_row(run / "metrics.jsonl") is None:
        assert process.poll() is None
        time.sleep(0.05)
    process.stdin.close()
    assert process.wait(PATIENCE) == worker.STOPPED
    row = grid.last_row(run / "metrics.jsonl")
    saved = Run.load(run)
    assert row is not None
    assert saved.method.steps == row["steps"]
    assert json.dumps(saved.settings.to_json()) == json.dumps(settings.to_json())
    saved.close()


def test_failures_show_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "c"
    plan(["ppo", "props"], "Hopper-v5", seeds=9, steps=100_000, margin=50.0, directory=where)
    for method, level in (("ppo", 900.0), ("props", 3000.0)):
        for seed in range(9):
            if (method, seed) != ("props", 8):
                write_run(where / f"{method}-s{seed}", method=method, seed=seed, level=level)
    found = load_comparison(where, failures={"props-s8": "it broke"})
    show(found)
    printed = capsys.readouterr().out
    for words in ("Hopper-v5", "props", "better", "reference", "sampling error", "props-s8 failed: it broke", str(where / "report.html")):
        assert words in printed
    assert [row["seeds"] for row in found.rows()] == [9, 8]
    assert found.rows()[1]["look"] == 8 and found.margin == 50.0
    assert plot_comparison(found, tmp_path / "c.svg", x="seconds").exists()
    assert write_report([found.directory], tmp_path / "c.html").exists()


@pytest.mark.parametrize(
    ("methods", "task", "options", "words"),
    [
        (["ppo", "poo"], "CartPole-v1", {}, "Unknown method 'poo': did you mean ppo"),
        (["ppo", "ppo"], "CartPole-v1", {}, "different methods, got ppo, ppo"),
        ([], "CartPole-v1", {}, "different methods, got none"),
        (["ppo"], "CartPole-v1", {"seeds": 0}, "seeds is 0"),
        (["ppo"], "CartPole-v1", {"margin": 0.0}, "margin is 0: it must be above 0"),
        (["ppo"], "CartPole-v1", {"seed": 3}, "give how many with seeds"),
        (["ppo"], object(), {}, "needs the name of a task"),
        (
            ["props", "ppo"],
            "CartPole-v1",
            {"behaviour_steps": 64},
            "ppo has no option behaviour_steps, and props has: give it to ",
        ),
        (["ppo"], "CartPole-v1", {"steps": 0}, "steps is 0"),
        (["ppo"], "NoSuchTask-v0", {}, "NoSuchTask-v0"),
    ],
)
def test_refused_before_any_work(tmp_path: Path, methods: list[str], task: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RheostatError, match=words):
        plan(methods, task, directory=tmp_path / "c", **{"seeds": 2, "steps": 1000} | options)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 2000}, "was made with steps 1000 for ppo, not 2000"),
        ({"learning_rate": 0.1}, r"was made with update\.learning_rate 0\.0003 for ppo, not 0\.1"),
        ({"task": "Hopper-v5"}, "compares on CartPole-v1, not Hopper-v5"),
        ({"methods": ["ppo"]}, "compares a2c too"),
        ({"seeds": 2}, "holds 3 seeds per method and 2 were asked for"),
        ({"margin": 5.0}, "was begun without a margin, and 5 is given now: a margin is declared before the first run"),
    ],
)
def test_a_directory_of_other_settings_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    asked: dict[str, Any] = {"methods": ["ppo", "a2c"], "task": "CartPole-v1", "seeds": 3, "steps": 1000, "directory": tmp_path / "c"}
    plan(**asked)
    plan(**asked)  # the same again is no conflict
    with pytest.raises(RheostatError, match=words):
        plan(**asked | change)
    runs, _, command = plan(**asked | {"methods": ["a2c", "ppo", "props"], "seeds": 4})  # more is
    assert len(runs) == 12
    assert "compare a2c ppo props --task CartPole-v1 --seeds 4" in command


def test_a_margin_is_declared_once(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"methods": ["ppo", "a2c"], "task": "CartPole-v1", "seeds": 2, "steps": 1000, "directory": tmp_path / "c"}
    _, where, command = plan(**asked, margin=5.0)
    assert command.endswith("--margin 5") and json.loads((where / "compare.json").read_text())["margin"] == 5.0
    plan(**asked)  # need not be said again
    assert json.loads((where / "compare.json").read_text())["margin"] == 5.0
    with pytest.raises(RheostatError, match="was begun with the margin 5, and 6 is given now"):
        plan(**asked, margin=6.0)


def test_the_command_gives_every_option_back(tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_envs": 4, "hidden": (8, 8), "anneal": False, "target_kl": None, "backend": "gymnasium"}
    _, _, command = plan(["ppo"], "CartPole-v1", seeds=1, steps=1000, directory=tmp_path / "a folder", **options)
    words = shlex.split(command)
    assert words[words.index("--directory") + 1] == str(tmp_path / "a folder")
    given = words[words.index("--options") + 1 :]
    assert dict(zip(given[::2], given[1::2], strict=True)) == {
        "num_envs": "4",
        "hidden": "[8, 8]",
        "anneal": "false",
        "target_kl": "null",
        "backend": "gymnasium",
    }
    assert comparison._command(["ppo"], "T", 1, 1, None, tmp_path, {"note": "1"}).endswith(
        "note '\"1\"'"
    )  # a text that looks like a number


def test_directories_that_are_no_comparison(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("")
    with pytest.raises(RheostatError, match="not empty and holds no comparison"):
        plan(["ppo"], "CartPole-v1", seeds=1, steps=1000, directory=tmp_path / "full")
    with pytest.raises(RheostatError, match="is a file"):
        plan(["ppo"], "CartPole-v1", seeds=1, steps=1000, directory=tmp_path / "file")
    with pytest.raises(RheostatError, match="There is no comparison in"):
        load_comparison(tmp_path / "full")
    plan(["ppo"], "CartPole-v1", seeds=1, steps=1000, directory=tmp_path / "c")
    with pytest.raises(RheostatError, match="has begun yet"):
        load_comparison(tmp_path / "c")
    (tmp_path / "c" / "compare.json").write_text("{")
    with pytest.raises(RheostatError, match=r"compare\.json is damaged"):
        load_comparison(tmp_path / "c")


def test_the_last_row_is_found_while_the_next_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert grid.last_row(path) is None
    path.write_text("")
    assert grid.last_row(path) is None
    path.write_text('{"steps": 1}\n' + "".join(f'{{"steps": {step}}}\n' for step in range(2, 9000)) + '{"steps": 9')
    assert grid.last_row(path) == {"steps": 8999}


def some_runs(tmp_path: Path) -> list[GridRun]:
    made = [
        GridRun(
            f"{method}-s{seed}", method, tmp_path / f"{method}-s{seed}", Settings(method=method, task="CartPole-v1", seed=seed, steps=1000)
        )
        for method in ("ppo", "props")
        for seed in (0, 1)
    ]
    for run, state, steps in zip(made, ("finished", "running", "running", "waiting"), (1000, 500, 100, 0), strict=True):
        run.state, run.steps, run.began = state, steps, 0.0001  # type: ignore[assignment]
    return made


def test_time_left_knows_speeds_and_that_a_run_cannot_be_split(tmp_path: Path) -> None:
    made = some_runs(tmp_path)
    assert display.time_left(made, jobs=2, now=10.0001) == pytest.approx(100.0)  # the waiting props run alone: 1000 steps at 10 a second
    assert display.time_left(made, jobs=1, now=10.0001) == pytest.approx(10 + 90 + 100)
    for run in made:
        run.state = "waiting"
    assert display.time_left(made, jobs=1, now=10.0) is None
    assert display.clock(3725) == "1:02:05"


def test_the_display_in_a_log_and_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = some_runs(tmp_path)
    made[0].headlines, made[1].headlines = {"episode_return": 3.0, "evaluation_return": 100.0}, {"evaluation_return": 200.0}
    made[1].headlines["episode_return"] = 7.0
    made[2].headlines = {"episode_return": 12.0}  # has not been evaluated yet
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        bar = GridBar("CartPole-v1")
        bar.start(made, 2)
        bar.update()
        bar.note("ppo-s1 failed: [no] reason")
        bar.stop()
        printed = capsys.readouterr().err
        said = ("CartPole-v1", "40%", "1/4 runs", "1/2 seeds", "evaluation return 150", "episode return 12", "ppo-s1 failed: [no] reason")
        for words in said:
            assert words in printed


def test_runs_that_stop_early_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="equal budgets"):
        compare(
            ["ppo", "a2c"], "CartPole-v1", seeds=1, steps=64, directory=tmp_path / "c", stop_at=("evaluation_return", 9.0), evaluate_every=1
        )
    assert not (tmp_path / "c").exists()
