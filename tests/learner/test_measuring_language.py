"""A language policy is measured before the first update and then at an interval; training never notices, and a resume repeats nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rheostat.analysis.curves import arm_curve
from rheostat.analysis.metrics import AXES
from rheostat.analysis.records import read_record
from rheostat.api import settings_for
from rheostat.methods import table
from rheostat.reporting.live_page import LivePage
from rheostat.reporting.report import write_report
from rheostat.training.progress import Bar
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure
from tests.annotated import ANNOTATED, annotated, sizes
from tests.crash import differences
from tests.golden.accessor import weights
from tests.golden.run import digest_weights
from tests.methods import test_dpo as preferences
from tests.methods.test_language_methods import Lenient, save, small
from tests.training.test_run import StopAfter

LANGUAGE = [name for name, row in table.METHODS.items() if row.domain == "language"]
MEASURED: dict[str, Any] = {"steps": 3, "evaluate_every": 2, "evaluation_prompts": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def begun(directory: Path, method: str, model: str, **options: Any) -> Run:
    """A new run of a method."""
    if method in ANNOTATED:
        values = preferences.OPTIONS | {"model": model} | options
        values = {name: value for name, value in values.items() if name != "pairs_per_batch"} | sizes(method)
        return Run.create(directory, settings_for(method, annotated(method), **values), task=annotated(method))
    return Run.create(directory, small(method, model, **options), task=Lenient())


def own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of updates, without what measurements say."""
    spoken = ("accuracy", "validation_")
    return [{name: value for name, value in row.items() if not name.startswith(spoken)} for row in rows if row["iteration"]]


@pytest.mark.parametrize("method", LANGUAGE)
def test_the_first_measurement_is_of_the_policy_that_was_given(method: str, model: str, tmp_path: Path) -> None:
    run = begun(tmp_path / "measured", method, model, **MEASURED)
    main = {"kto": "validation_label_accuracy"}.get(method, "validation_preference_accuracy" if method in ANNOTATED else "accuracy")
    first = run.method.evaluate(4)
    run.train()
    rows = run.metrics
    assert rows[0] == {"iteration": 0, "steps": 0, "updates": 0} | first and main in first
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert [row["updates"] for row in rows if main in row] == [0, 2]
    blind = begun(tmp_path / "blind", method, model, **MEASURED | {"evaluate_every": 0}).train()
    assert [row["iteration"] for row in blind.metrics] == [1, 2, 3]
    assert digest_weights(weights(blind.method)) == digest_weights(weights(run.method)) and own(blind.metrics) == own(rows)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_run_that_stops_after_it_goes_on_exactly(rows: int, model: str, tmp_path: Path) -> None:
    whole = begun(tmp_path / "whole", "grpo", model, **MEASURED).train()
    halted = begun(tmp_path / "halted", "grpo", model, **MEASURED)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(rows))
    again = Run.load(tmp_path / "halted", task=Lenient()).train()
    assert again.metrics == whole.metrics and differences(tmp_path / "whole", tmp_path / "halted") == []


class Died(Exception):
    """The process is gone."""


def test_a_run_that_dies_before_its_first_update_measures_again(model: str, tmp_path: Path) -> None:
    whole = begun(tmp_path / "whole", "grpo", model, **MEASURED).train()
    dying = begun(tmp_path / "dying", "grpo", model, **MEASURED)

    def die() -> Any:
        raise Died

    dying.method.collect = die  # type: ignore[method-assign]
    with pytest.raises(Died):
        dying.train()
    dying.close()
    assert Run.load(tmp_path / "dying", task=Lenient()).train().metrics == whole.metrics


def test_it_is_the_first_point_of_every_curve(model: str, tmp_path: Path) -> None:
    """At nothing spent on every axis, in the report, in the page that refreshes itself, and in the live view."""
    run = begun(tmp_path / "run", "grpo", model, **MEASURED | {"rollouts_kept": 4}).train()
    record = read_record(tmp_path / "run")
    curve = arm_curve([record], "accuracy")
    assert curve is not None and curve.y[0] == run.metrics[0]["accuracy"] and len(curve.y) == 2
    assert {"steps", "generated_tokens", "learner_tokens", "reward_calls", "flops", "seconds"} <= set(curve.x)
    assert all(curve.x[axis.key][0] == 0 and curve.x[axis.key][1] > 0 for axis in AXES if axis.key in curve.x)
    assert record.headline == "accuracy"
    live = LivePage([tmp_path / "run"], port=0)
    for page in (write_report([tmp_path / "run"], tmp_path / "report.html").read_text(), live.whole()):
        assert re.search(r'"steps": ?\[0(\.0)?, ?2(\.0)?\]', page)  # where the measurements stand
    live.server.server_close()
    view = Bar("grpo", run.metrics).view
    assert view.curves["accuracy"][0] == run.metrics[0]["accuracy"]


def test_the_default_is_every_ten_updates_from_the_start_and_0_is_never() -> None:
    assert {configure(name, {}).evaluation.every for name in LANGUAGE} == {10}
    assert "the first comes before any update" in {each.path: each.documentation for each in _options("grpo")}["evaluation.every"]


def _options(method: str) -> Any:
    from rheostat.options import options_of

    return options_of(configure(method, {}))
