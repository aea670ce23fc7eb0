"""Dashboards: what they get, that runs do not merge, that nothing comes twice, and that none of them harms a run."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.errors import MissingExtra, RheostatError
from rheostat.training import sinks
from rheostat.training.progress import Silent
from rheostat.training.run import Run
from rheostat.training.sinks import SINKS, Forward, Identity, MLflow, Trackio, WandB, check_sinks, open_sinks
from tests.tiny_control import small


class Kept(Silent):
    """A display that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def silent(text: str) -> None:
    raise AssertionError(text)


class Fake(Forward):
    """A dashboard that fails where it is asked to."""

    package = "json"
    fails = ""
    rows: list[int] = []  # noqa: RUF012

    def __init__(self, directory: Path, settings: dict[str, Any], begun: int | None, say: Any) -> None:
        super().__init__(directory, begun)
        self.work("open")

    def work(self, what: str) -> None:
        if what in self.fails:
            raise ConnectionError("no route to host")

    def send(self, steps: int, metrics: dict[str, Any]) -> None:
        self.work("send")
        self.rows.append(steps)

    def close(self) -> None:
        self.work("close")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setitem(SINKS, "fake", Fake)  # type: ignore[arg-type]
    monkeypatch.setattr(Fake, "rows", [])
    return Fake


@pytest.mark.parametrize("fails", ["open", "send", "close"])
def test_a_dashboard_that_fails_costs_one_sentence(fails: str, fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "fails", fails)
    display = Kept()
    run = Run.create(tmp_path / "run", small("ppo")).train(progress=display, sinks=("fake",))
    assert display.said == ["The dashboard fake failed (ConnectionError: no route to host): the run goes on without it."]
    whole = Run.create(tmp_path / "whole", small("ppo")).train()
    assert run.metrics == whole.metrics and run.finished
    assert fake.rows == ([row["steps"] for row in run.metrics] if fails == "close" else [])


def test_a_dashboard_is_told_every_step_once(fake: type[Fake], tmp_path: Path) -> None:
    def told(begun: int | None, *steps: int) -> None:
        (sink,) = open_sinks(("fake",), tmp_path, {}, begun, silent)
        for step in steps:
            sink.log(step, {})

    told(None, 64, 128, 192)
    told(64, 128, 192, 256)
    assert fake.rows == [64, 128, 192, 256]
    told(None, 64)  # begun anew
    assert fake.rows[-1] == 64


def test_runs_of_one_folder_name_are_told_apart_and_a_moved_one_is_the_same(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "run").mkdir(parents=True)
        Identity(tmp_path / place / "run").keep()
    first, second = Identity(tmp_path / "a" / "run"), Identity(tmp_path / "b" / "run")
    assert first.id != second.id and first.name != second.name and first.name.startswith("run-")
    assert Identity(tmp_path / "a" / "run").id == first.id
    shutil.copytree(tmp_path / "a" / "run", tmp_path / "copy")
    assert Identity(tmp_path / "copy").id != first.id
    (tmp_path / "a" / "run").rename(tmp_path / "moved")
    assert Identity(tmp_path / "moved").id == first.id


def test_a_damaged_identity_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / sinks.TRACKERS).write_text("{")
    assert Identity(tmp_path).told("wandb") == -1


def test_an_unknown_or_missing_dashboard_is_refused_before_a_directory_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RheostatError, match="did you mean wandb"):
        rheostat.train("ppo", "CartPole-v1", directory=tmp_path / "run", steps=64, progress=False, sinks=("wandbs",))
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"Logging to mlflow needs the package 'mlflow'"):
        rheostat.train("ppo", "CartPole-v1", directory=tmp_path / "run", steps=64, progress=False, sinks=("mlflow",))
    with pytest.raises(MissingExtra):
        check_sinks(("wandb",))
    assert not (tmp_path / "run").exists()


def test_trackio_gets_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio")
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(trackio, "init", lambda **options: begun.append(options))
    sink = Trackio(tmp_path, {"seed": 1}, None, silent)
    assert begun[0]["name"] == sink.identity.name and begun[0]["config"] == {"seed": 1}


def test_mlflow_in_a_file_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "run").mkdir()
    settings = {"method": "ppo", "config": {"clip": {"high": 0.2}}}
    sink = MLflow(tmp_path / "run", settings, None, silent)
    for steps in (64, 128):
        sink.log(steps, {"episode_return": float(steps), "meter/ess": 1.0, "note": "text"})
    sink.close()
    again = MLflow(tmp_path / "run", settings, 64, silent)
    for steps in (128, 192):
        again.log(steps, {"episode_return": float(steps)})
    again.close()
    assert again.run == sink.run
    points = again.client.get_metric_history(again.run, "episode_return")
    assert [(point.step, point.value) for point in points] == [(64, 64.0), (128, 128.0), (192, 192.0)]
    kept = again.client.get_run(again.run)
    assert kept.data.params == {"method": "ppo", "config.clip.high": "0.2"} and kept.info.status == "FINISHED"
    assert (tmp_path / "mlruns").is_dir()


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(type(wandb.api), "api_key", property(lambda self: None), raising=False)
    (tmp_path / "run").mkdir()
    said: list[str] = []
    sink = WandB(tmp_path / "run", {"seed": 1}, None, said.append)
    sink.log(64, {"episode_return": 3.0})
    sink.close()
    assert len(said) == 1 and said[0].startswith("W&B has no login here (`wandb login`), so it is kept offline; `wandb sync")
    (written,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{sink.identity.id}/*.wandb")
    patience = 600  # W&B's own process writes the file, and may do so after the run has finished
    while b"episode_return" not in written.read_bytes() and patience:
        time.sleep(0.1)
        patience -= 1
    assert b"episode_return" in written.read_bytes()


def test_wandb_without_network_is_kept_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    modes: list[str] = []

    def init(**options: Any) -> Any:
        modes.append(options["mode"])
        if options["mode"] == "online":
            raise wandb.errors.CommError("no network")
        return None

    monkeypatch.setattr(wandb, "init", init)
    said: list[str] = []
    WandB(tmp_path, {}, None, said.append)
    assert modes == ["online", "offline"] and said[0].startswith("W&B cannot be reached (no network), so it is kept offline")


def test_no_package_is_loaded_for_a_run_without_dashboards(tmp_path: Path) -> None:
    before = set(sys.modules)
    Run.create(tmp_path / "run", small("ppo")).train()
    assert not {"wandb", "mlflow", "trackio", "optuna"} & (set(sys.modules) - before)
