"""Going on: a larger budget for a run that is finished, and dashboards without doubled steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.errors import RheostatError
from rheostat.training.run import Run
from rheostat.training.sinks import Trackio
from tests.tiny_control import small


@pytest.mark.parametrize("method", ["ppo", "sac"])
def test_a_finished_run_goes_on_as_if_its_budget_had_been_larger(method: str, tmp_path: Path) -> None:
    """Where nothing falls over the budget, it is the longer run, number by number."""
    known: dict[str, Any] = {"anneal": False} if method == "ppo" else {}
    whole = Run.create(tmp_path / "whole", small(method, **known, steps=400)).train()
    run = Run.create(tmp_path / "run", small(method, **known, steps=200)).train()
    spent = run.method.steps
    longer = Run.extended(tmp_path / "run", 400)
    assert not longer.finished and "grew from 200 to 400" in longer.notes[-1]
    longer.train()
    after = 0 if method == "ppo" else spent + 20  # sac has one row more, where the shorter run ended
    rows, theirs = ([row for row in each.metrics if row["steps"] > after] for each in (longer, whole))
    assert rows == theirs and len(rows) > 2
    assert longer.finished and longer.settings.steps == 400
    description = json.loads((tmp_path / "run" / "config.json").read_text())
    assert description["settings"]["steps"] == 400 and description["history"][0]["steps"] == [200, 400]
    assert any("grew from 200 to 400" in sentence for sentence in longer.summary["remarks"])
    assert Run.load(tmp_path / "run").finished


def test_budgets_that_cannot_grow_are_refused(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", small("ppo", steps=128)).train()
    with pytest.raises(RheostatError, match="name a larger one"):
        rheostat.resume(tmp_path / "run", steps=128, progress=False)
    Run.create(tmp_path / "data", small("iql"))
    with pytest.raises(RheostatError, match="gradient steps on it"):
        rheostat.resume(tmp_path / "data", steps=100, progress=False)


class Broken(rheostat.Callback):
    """Dies at a row."""

    def on_update(self, run: Run, metrics: dict[str, Any]) -> None:
        if metrics["iteration"] == 7:
            raise KeyError("stop")


def test_tensorboard_shows_no_step_twice_after_a_crash(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run.create(tmp_path / "run", small("ppo"))
    with pytest.raises(KeyError):
        run.train(sinks=("tensorboard",), callbacks=[Broken()])
    again = Run.load(tmp_path / "run").train(sinks=("tensorboard",))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("policy_loss")] == [row["steps"] for row in again.metrics]


def test_trackio_gets_no_row_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio")
    rows: list[int] = []
    monkeypatch.setattr(trackio, "init", lambda **options: None)
    monkeypatch.setattr(trackio, "log", lambda metrics, step: rows.append(step))
    first = Trackio(tmp_path, {})
    for steps in (64, 128, 192):
        first.log(steps, {})
    second = Trackio(tmp_path, {}, 64)
    for steps in (128, 192, 256):
        second.log(steps, {})
    assert rows == [64, 128, 192, 256]
