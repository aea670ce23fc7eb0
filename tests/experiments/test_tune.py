"""The search for options: what is tried, what is kept, what fails, what it costs, and that it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.cli.entry import main, parse
from rheostat.errors import RheostatError
from rheostat.experiments import tune as module
from rheostat.experiments.comparison import ComparisonInterrupted
from rheostat.experiments.grid import GridRun
from rheostat.experiments.manifests import write_fields
from rheostat.experiments.tune import FIRST_SEED, Range, load_tuning, open_study, tune
from rheostat.reporting.tables import show
from tests.analysis.synthetic import write_run

pytest.importorskip("optuna", reason="needs optuna: pip install '.[tune]'")


class Instant:
    """In place of the grid: every run is there at once, its level is the learning rate's distance from 1e-3."""

    stops_at = math.inf
    seen: list[str] = []  # noqa: RUF012

    def __init__(self, runs: Sequence[GridRun], jobs: int, logs: Path, command: str, display: Any) -> None:
        self.runs = runs

    def run(self) -> bool:
        for run in self.runs:
            if len(self.seen) >= self.stops_at:
                return False
            self.seen.append(run.name)
            rate = run.settings.config["update"]["learning_rate"] if "update" in run.settings.config else 1.0
            if rate > 9e-3:
                run.state, run.error = "failed", "the worker died"
                continue
            if not run.directory.exists():
                level = 100 - abs(math.log10(rate) + 3) * 10
                write_run(run.directory, seed=run.settings.seed, level=level, rows=12, update={"learning_rate": rate})
                (run.directory / "summary.json").write_text(json.dumps({"steps": 9, "evaluation_return": level}))
            run.state = "finished"
        return True


@pytest.fixture(autouse=True)
def instant(monkeypatch: pytest.MonkeyPatch) -> type[Instant]:
    monkeypatch.setattr(module, "Grid", Instant)
    monkeypatch.setattr(Instant, "seen", [])
    monkeypatch.setattr(Instant, "stops_at", math.inf)
    return Instant


ASKED: dict[str, Any] = {"trials": 8, "search": {"learning_rate": "log:1e-5..8e-3"}, "jobs": 2, "progress": False, "steps": 100}


def test_the_best_of_the_trials_is_found_and_the_cost_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rheostat.tune("ppo", "CartPole-v1", directory=tmp_path / "t", seeds=2, **ASKED)
    assert len(found.trials) == 8 and all(1e-5 <= trial.options["learning_rate"] <= 8e-3 for trial in found.trials)
    assert found.best is not None and found.best.value == max(trial.value or 0 for trial in found.trials)
    assert {record.seed for trial in found.trials for record in trial.records} == {FIRST_SEED, FIRST_SEED + 1}
    assert found.cost == {"trials": 8, "failed": 0, "runs": 16, "steps": 16 * 100_000, "seconds": pytest.approx(16 * 12 * 0.8)}
    show(found)
    said = capsys.readouterr().out
    assert "The search took 8 trials: 16 runs, 1,600,000 steps, 154 s of computing." in said
    assert f"rheostat compare ppo ppo:learning_rate={found.best.options['learning_rate']} --task CartPole-v1" in said
    page = (tmp_path / "t" / "report.html").read_text()
    assert "The search took 8 trials" in page and "seeds that were not tuned on" in page
    assert json.loads((tmp_path / "t" / "tune.json").read_text())["result"]["best"]["trial"] == found.best.number


def test_a_search_goes_on_and_proposes_what_it_would_have_proposed(tmp_path: Path, instant: type[Instant]) -> None:
    whole = tune("ppo", "CartPole-v1", directory=tmp_path / "whole", **ASKED)
    instant.seen.clear()
    instant.stops_at = 3
    with pytest.raises(ComparisonInterrupted, match=r"Continue with: rheostat tune ppo CartPole-v1 --trials 8"):
        tune("ppo", "CartPole-v1", directory=tmp_path / "halted", **ASKED)
    instant.stops_at = math.inf
    again = tune("ppo", "CartPole-v1", directory=tmp_path / "halted", **ASKED)
    assert [trial.options for trial in again.trials] == [trial.options for trial in whole.trials]
    assert [trial.value for trial in again.trials] == [trial.value for trial in whole.trials]
    more = tune("ppo", "CartPole-v1", directory=tmp_path / "halted", **ASKED | {"trials": 10})
    assert [trial.value for trial in more.trials[:8]] == [trial.value for trial in whole.trials] and len(more.trials) == 10


def test_trials_that_fail_are_a_sentence_each_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One value kills the worker, another cannot be configured at all."""
    search = {"learning_rate": "0.001|0.01", "batch_steps": "2048|1001"}
    found = tune("ppo", "CartPole-v1", directory=tmp_path / "t", **ASKED | {"trials": 12, "search": search})
    errors = {trial.error for trial in found.trials if trial.error}
    assert any("the worker died" in error for error in errors) and any("1001 steps do not divide" in error for error in errors)
    assert found.best is not None and found.best.options == {"learning_rate": 0.001, "batch_steps": 2048}
    assert found.cost["failed"] == sum(bool(trial.error) for trial in found.trials) > 0
    show(found)
    assert "of which failed" in capsys.readouterr().out
    with pytest.raises(RheostatError, match="Every trial failed, the first one with: the worker died"):
        tune("ppo", "CartPole-v1", directory=tmp_path / "all", **ASKED | {"trials": 2, "search": {"learning_rate": "0.01|0.02"}})


def test_another_search_does_not_mix_with_one_that_is_there(tmp_path: Path) -> None:
    tune("ppo", "CartPole-v1", directory=tmp_path / "t", **ASKED)
    for other in ({"seeds": 2}, {"steps": 200}, {"search": {"clip": "0.1..0.3"}}, {"num_envs": 4}):
        with pytest.raises(RheostatError, match="was begun with"):
            tune("ppo", "CartPole-v1", directory=tmp_path / "t", **ASKED | other)
    with pytest.raises(RheostatError, match="holds no search"):
        tune("ppo", "CartPole-v1", directory=tmp_path, **ASKED)
    with pytest.raises(RheostatError, match="There is no search in"):
        load_tuning(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"search": {"learning_rate": "1e-5"}}, "write LOW..HIGH"),
        ({"search": {"learning_rate": "2..1"}}, "must rise"),
        ({"search": {"learning_rate": "log:0..1"}}, "from above 0"),
        ({"search": {"learning_rat": "0.1..1.0"}}, "learning_rate"),
        ({"trials": 0}, "trials is 0"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seed": 3}, "chooses its seeds itself"),
        ({"learning_rate": 1e-3}, "both searched and given"),
        ({"clipp": 0.2}, "did you mean"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_directory_is_made(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=words):
        tune("ppo", "CartPole-v1", directory=tmp_path / "t", **ASKED | options)
    assert not (tmp_path / "t").exists()


def test_proposed_numbers_have_four_digits_and_stay_in_their_range() -> None:
    class Fixed:
        def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
            return 0.0012520653814999472 if name == "a" else high

    assert Range.read("a", "log:1e-4..1e-2").suggest(Fixed(), "a") == 0.001252
    assert Range.read("b", "0.1..0.299996").suggest(Fixed(), "b") == 0.299996


def test_ranges() -> None:
    assert Range.read("x", "log:1e-5..1e-2") == Range(1e-5, 1e-2, True)
    assert Range.read("x", "2..8") == Range(2, 8) and isinstance(Range.read("x", "2..8").low, int)
    assert Range.read("x", "tanh|relu").choices == ("tanh", "relu") and Range.read("x", "[64]|[64, 64]").choices == ([64], [64, 64])


def test_without_a_range_the_learning_rate_is_searched(tmp_path: Path) -> None:
    found = tune("ppo", "CartPole-v1", directory=tmp_path / "t", **ASKED | {"search": None, "trials": 3})
    rates = [next(iter(trial.options.values())) for trial in found.trials]
    assert all(3e-5 <= rate <= 3e-3 for rate in rates)


def test_a_damaged_journal_or_plan_is_one_sentence(tmp_path: Path) -> None:
    tune("ppo", "CartPole-v1", directory=tmp_path / "t", **ASKED | {"trials": 1})
    (tmp_path / "t" / "tune.json").write_text("{}")
    with pytest.raises(RheostatError, match=r"tune.json is damaged"):
        load_tuning(tmp_path / "t")


def test_the_command_and_how_it_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "t"
    main(["tune", "ppo", "CartPole-v1", "--trials", "2", "--steps", "100", "--search", "learning_rate", "1e-4..1e-3", "--directory",
          str(where), "--jobs", "1", "--options", "num_envs", "4", "--json"])  # fmt: skip
    assert json.loads(capsys.readouterr().out)["cost"]["trials"] == 2
    command = json.loads((where / "tune.json").read_text())["command"]
    assert parse(command.split()[1:]).options == {"num_envs": "4"}
    main(["resume", str(where)])
    assert len(load_tuning(where).trials) == 2 and len(open_study(where, {"method": "ppo"}).trials) == 2


def test_choosing_among_offline_policies_costs_environment_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best of many trials was found by trying them all: the table says what fewer would have given."""
    found = tune("ppo", "CartPole-v1", directory=tmp_path / "t", **ASKED | {"trials": 4})
    assert found.by_budget == {} and "chosen_online" not in found.to_json()
    plan = json.loads((tmp_path / "t" / "tune.json").read_text())
    write_fields(
        tmp_path / "t" / "tune.json", {name: value for name, value in plan.items() if name != "sha256"} | {"options": {"offline": "data"}}
    )
    offline = load_tuning(tmp_path / "t")
    values = sorted(trial.value for trial in offline.trials if trial.value is not None)
    assert offline.by_budget[1] == pytest.approx(sum(values) / 4) and offline.by_budget[4] == pytest.approx(values[-1])
    assert offline.to_json()["chosen_online"] == [[k, offline.by_budget[k]] for k in (1, 2, 4)]
    show(offline)
    assert "that are tried online: 1: " in capsys.readouterr().out
