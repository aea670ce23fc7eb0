"""Callbacks: what they are told, errors of their own, the best policy that is kept, and the rule that stops early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.errors import RheostatError
from rheostat.training.callbacks import StopAt
from rheostat.training.run import Interrupted, Run
from tests.crash import differences
from tests.tiny_control import replays, small
from tests.training.test_run import StopAfter

LOOKED_AT: dict[str, Any] = {"evaluate_every": 128, "evaluate_episodes": 2}


class Notes(rheostat.Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.measured: list[dict[str, Any]] = []
        self.paths: list[Path] = []

    def on_update(self, run: Run, metrics: dict[str, Any]) -> None:
        self.rows.append(metrics)

    def on_evaluation(self, run: Run, metrics: dict[str, Any]) -> None:
        assert run.metrics[-1] == metrics == self.rows[-1]
        self.measured.append(metrics)

    def on_checkpoint(self, run: Run, path: Path) -> None:
        assert (path / "manifest.json").exists()
        self.paths.append(path)


@pytest.mark.parametrize("method", ["ppo", "sac", "ippo"])
def test_callbacks_are_told_everything_and_change_nothing(method: str, tmp_path: Path) -> None:
    notes = Notes()
    run = Run.create(tmp_path / "run", small(method, **LOOKED_AT)).train(callbacks=[notes])
    assert notes.rows == run.metrics
    assert notes.measured == [row for row in run.metrics if "evaluation_return" in row] and len(notes.measured) > 2
    assert len(notes.paths) >= 4 and notes.paths[-1].name in {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    alone = Run.create(tmp_path / "alone", small(method, **LOOKED_AT)).train()
    assert alone.metrics == run.metrics and differences(tmp_path / "alone", tmp_path / "run") == []


class Clumsy:
    """Fails at one row."""

    def __init__(self, row: int) -> None:
        self.row = row

    def on_update(self, run: Run, metrics: dict[str, Any]) -> None:
        if metrics["iteration"] == self.row:
            raise ZeroDivisionError("mine")


def test_an_error_of_a_callback_is_its_own_and_the_run_goes_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("ppo"))
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        run.train(callbacks=[Clumsy(7)])
    assert caught.traceback[-1].name == "on_update"
    (note,) = caught.value.__notes__
    assert "on_update of your callback Clumsy" in note and f"rheostat resume {tmp_path / 'run'}" in note
    whole = Run.create(tmp_path / "whole", small("ppo")).train()
    assert Run.load(tmp_path / "run").train().metrics == whole.metrics
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_what_listens_to_nothing_is_refused_before_a_directory_is_made(tmp_path: Path) -> None:
    class Typo:
        def on_updates(self, run: Run, metrics: dict[str, Any]) -> None: ...

    for callback, words in ((Typo(), "did you mean on_update"), (object(), "listens to nothing"), (Notes, "is a class")):
        with pytest.raises(RheostatError, match=words):
            rheostat.train("ppo", "CartPole-v1", directory=tmp_path / "run", steps=64, progress=False, callbacks=[callback])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["ppo", "recurrent-ppo", "ippo", "props", "sac", "iql", "uni-o4"])
def test_the_best_policy_is_kept_and_can_be_opened(method: str, tmp_path: Path) -> None:
    often = {"evaluate_every": 40 if replays(method) else 128, "evaluate_episodes": 2}
    run = Run.create(tmp_path / "run", small(method, save_best=True, **often)).train()
    measured = [row for row in run.metrics if "evaluation_return" in row]
    best = max(measured, key=lambda row: row["evaluation_return"])
    kept = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert kept == {name: best[name] for name in ("steps", "updates", "evaluation_return")}
    opened = Run.load(tmp_path / "run", at="best")
    assert opened.evaluate(2)["evaluation_return"] == best["evaluation_return"]
    with pytest.raises(RheostatError, match="opened at its best policy"):
        opened.train()


def test_a_resumed_run_keeps_the_same_best_policy(tmp_path: Path) -> None:
    options = LOOKED_AT | {"save_best": True}
    Run.create(tmp_path / "whole", small("ppo", **options)).train()
    with pytest.raises(ZeroDivisionError):
        Run.create(tmp_path / "halted", small("ppo", **options)).train(callbacks=[Clumsy(9)])
    Run.load(tmp_path / "halted").train()
    for file in ("best.json", "policy/state.safetensors", "policy/state.json"):
        assert (tmp_path / "whole" / "best" / file).read_bytes() == (tmp_path / "halted" / "best" / file).read_bytes()


def test_a_run_stops_where_its_rule_says_also_after_a_resume(tmp_path: Path) -> None:
    whole = Run.create(tmp_path / "whole", small("ppo", seed=1, **LOOKED_AT)).train()
    measured = [row for row in whole.metrics if "evaluation_return" in row]
    enough = max(row["evaluation_return"] for row in measured)
    first = next(row for row in measured if row["evaluation_return"] == enough)
    assert 2 <= first["iteration"] < whole.metrics[-1]["iteration"]
    options = LOOKED_AT | {"seed": 1, "stop_at": ("evaluation_return", enough)}
    run = Run.create(tmp_path / "run", small("ppo", **options)).train()
    assert run.finished and run.metrics == whole.metrics[: whole.metrics.index(first) + 1]
    (said,) = [sentence for sentence in run.summary["warnings"] if sentence.startswith("Stopped at")]
    assert f"{first['steps']:,} of 1,000 steps" in said and "stop_at" in said
    halted = Run.create(tmp_path / "halted", small("ppo", **options))
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    again = Run.load(tmp_path / "halted").train()
    assert again.metrics == run.metrics and again.summary["warnings"] == run.summary["warnings"]
    assert Run.load(tmp_path / "run").finished


def test_what_goes_by_measurements_needs_some(tmp_path: Path) -> None:
    for options in ({"save_best": True}, {"stop_at": ("evaluation_return", 9.0)}):
        with pytest.raises(RheostatError, match="evaluate_every is 0"):
            Run.create(tmp_path / "run", small("ppo", **options))
    assert StopAt("validation_reward", 0.5).metric == "accuracy", "as tables name it"
    with pytest.raises(RheostatError, match="Unknown metric for stop_at 'episode_return'"):
        Run.create(tmp_path / "run", small("ppo", stop_at=("episode_return", 9.0), **LOOKED_AT))
    with pytest.raises(RheostatError, match="which this run does not measure"):
        Run.create(tmp_path / "run", small("ppo", stop_at=("normalised_score", 9.0), **LOOKED_AT)).train()
    with pytest.raises(RheostatError, match="has kept no best policy"):
        Run.load(tmp_path / "run", at="best")
