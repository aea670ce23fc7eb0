"""Going on: a larger budget for a run that is finished, and dashboards without doubled steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.api import settings_for
from rheostat.cli.entry import parse
from rheostat.errors import RheostatError
from rheostat.training.run import Interrupted, Run
from tests.tiny_control import CONTROL, ZERO_SHOT, acts_in, having, reads_data, small, small_options
from tests.training.test_run import StopAfter


@pytest.mark.parametrize("method", ["ppo", "sac"])
def test_a_finished_run_goes_on_as_if_its_budget_had_been_larger(method: str, tmp_path: Path) -> None:
    """Where nothing falls over the budget, it is the longer run, number by number."""
    known: dict[str, Any] = {"anneal": False} if method == "ppo" else {}
    whole = Run.create(tmp_path / "whole", small(method, **known, steps=400)).train()
    run = Run.create(tmp_path / "run", small(method, **known, steps=200)).train()
    spent = run.method.steps
    longer = Run.extended(tmp_path / "run", 400)
    assert not longer.finished and "grew from 200 to 400" in longer.warnings[-1]
    longer.train()
    after = 0 if method == "ppo" else spent + 20  # sac has one row more, where the shorter run ended
    rows, theirs = ([row for row in each.metrics if row["steps"] > after] for each in (longer, whole))
    assert rows == theirs and len(rows) > 2
    assert longer.finished and longer.settings.steps == 400
    description = json.loads((tmp_path / "run" / "config.json").read_text())
    assert description["settings"]["steps"] == 400 and description["history"][0]["steps"] == [200, 400]
    assert any("grew from 200 to 400" in sentence for sentence in longer.summary["warnings"])
    assert Run.load(tmp_path / "run").finished


def test_budgets_that_cannot_grow_are_refused(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", small("ppo", steps=128)).train()
    with pytest.raises(RheostatError, match="name a larger one"):
        rheostat.resume(tmp_path / "run", steps=128, progress=False)
    for options, message in (
        ({"steps": 127}, "name a larger one"),
        ({"online_steps": 100}, "ppo does not begin with one: name more --steps"),
    ):
        with pytest.raises(RheostatError, match=message):
            rheostat.resume(tmp_path / "run", progress=False, **options)
    Run.create(tmp_path / "data", small("iql"))
    for options, message in (({"steps": 300}, "gradient steps on it"), ({"online_steps": 99}, "a budget of 100 online_steps")):
        with pytest.raises(RheostatError, match=message):
            rheostat.resume(tmp_path / "data", progress=False, **options)
    Run.create(tmp_path / "clone", small("bc")).train()
    with pytest.raises(RheostatError, match="would only imitate itself"):
        rheostat.resume(tmp_path / "clone", online_steps=100, progress=False)
    assert Run.load(tmp_path / "clone").finished


OFFLINE = [
    pytest.param(name, marks=() if name in ("iql", "cql") else pytest.mark.slow)
    for name in CONTROL
    if reads_data(name) == "first" and name != "bc" and name not in ZERO_SHOT
]


@pytest.mark.parametrize("method", OFFLINE)
def test_a_finished_offline_run_goes_online_as_if_it_had_been_planned(method: str, tmp_path: Path) -> None:
    """What was learned from the data is where acting begins, with the replay that the method's own online phase begins with."""
    steps = 2_048 if method == "uni-o4" else 100  # a batch of it
    task = acts_in(method)
    options = {name: value for name, value in small_options(method, task).items() if not name.startswith("online_")}
    options |= having(method, {"update_to_data": 1.0}) | {"evaluation_episodes": 2}
    planned = having(method, {"anneal": False}) | {"online_steps": steps}
    whole = Run.create(tmp_path / "whole", settings_for(method, task, **options | planned)).train()
    run = Run.create(tmp_path / "run", settings_for(method, task, **options | having(method, {"anneal": False}))).train()
    assert run.finished and run.metrics[-1]["steps"] == run.settings.steps
    online = Run.extended(tmp_path / "run", online_steps=steps)
    if method != "uni-o4":
        with pytest.raises(Interrupted):
            online.train(progress=StopAfter(2))
    again = Run.load(tmp_path / "run").train()
    assert again.finished and again.method.steps == whole.method.steps
    rows, theirs = ([row for row in each.metrics if row["steps"] > run.settings.steps] for each in (again, whole))
    assert rows == theirs and rows
    assert again.summary["evaluation_return"] == whole.summary["evaluation_return"]
    history = json.loads((tmp_path / "run" / "config.json").read_text())["history"][0]
    assert history["online_steps"] == [0, steps] and history["at"] == run.settings.steps
    assert any(f"{steps:,} environment steps after the data set" in sentence for sentence in again.summary["warnings"])
    longer = Run.extended(tmp_path / "run", online_steps=3 * steps)
    assert longer.settings.budget == again.settings.budget + 2 * steps and not longer.finished


def test_the_command_line_takes_an_offline_run_online(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", small("iql", online_steps=0, update_to_data=1.0)).train()
    parse(["resume", str(tmp_path / "run"), "--online-steps", "60"]).run()
    assert Run.load(tmp_path / "run").method.steps == 300


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
