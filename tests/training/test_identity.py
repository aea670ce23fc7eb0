"""A run goes on only as the run that began, or with differences that were accepted and are recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.analysis.records import read_record
from rheostat.errors import RheostatError
from rheostat.training import checkpoint
from rheostat.training import run as run_module
from rheostat.training.identity import changed_sources, identity_of, versions
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import Settings
from tests.tiny_control import small
from tests.training.test_run import StopAfter


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run.create(tmp_path_factory.mktemp("runs") / "stopped", small("ppo"))
    with pytest.raises(Interrupted):
        run.train(progress=StopAfter(12))
    return run.directory


def test_an_edited_setting_is_named(stopped: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    path = directory / "config.json"
    description = json.loads(path.read_text())
    description["settings"]["config"]["update"]["learning_rate"] = 0.125
    path.write_text(json.dumps(description))
    sentence = r"The setting config\.update\.learning_rate is 0\.125 now, and was 0\.0003 when the run began\."
    with pytest.raises(RheostatError, match=sentence + ".*--accept-changes"):
        rheostat.resume(directory, progress=False)
    run = rheostat.resume(directory, progress=False, accept_changes=True)
    assert run.metrics[-1]["learning_rate"] != run.metrics[5]["learning_rate"]
    said = [each for each in run.summary["warnings"] if "learning_rate is 0.125 now" in each]
    assert len(said) == 1 and said[0].startswith("From iteration 12 on: ")
    assert read_record(directory).faults == () and said[0] in read_record(directory).notes
    assert "learning_rate is 0.125 now" in (directory / "report.html").read_text()


@pytest.mark.parametrize(
    ("package", "refused"), [("torch", True), ("numpy", True), ("gymnasium", True), ("tensordict", False), ("python", False)]
)
def test_other_versions(package: str, refused: bool, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    monkeypatch.setattr(run_module, "versions", lambda: versions() | {package: "0.0.1"})
    sentence = f"The version of {package} is 0.0.1 now, and was "
    if refused:
        with pytest.raises(RheostatError, match=sentence):
            Run.load(directory).train()
    run = Run.load(directory, accept_changes=refused).train()
    assert any(sentence in each for each in run.summary["warnings"])


def test_a_patch_of_the_library_is_a_note_and_more_is_refused() -> None:
    before = identity_of(small("ppo"), {"rheostat": "1.2.3"})
    for version, grave in (("1.2.4", 0), ("1.3.0", 1), ("2.2.3", 1)):
        found = changed_sources(before, identity_of(small("ppo"), {"rheostat": version}), "ppo")
        assert (len(found[0]), len(found[1])) == (grave, 1 - grave)


def test_rewards_and_the_base_model_are_compared_by_their_content(tmp_path: Path) -> None:
    rewards, model = tmp_path / "my_rewards.py", tmp_path / "base"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    rewards.write_text("def score(): return 1")
    settings = Settings("grpo", "chain-sum", model=str(model), rewards=(f"{rewards}:score",))
    before = identity_of(settings, {})
    assert changed_sources(before, identity_of(settings, {}), "grpo") == ([], [])
    rewards.write_text("def score(): return 2")
    (model / "model.safetensors").write_bytes(b"Weights")
    assert changed_sources(before, identity_of(settings, {}), "grpo")[0] == [
        "The base model base has changed since the run began.",
        "The reward function of my_rewards.py has changed since the run began.",
    ]


def test_a_run_without_an_identity_goes_on(stopped: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    for name in checkpoint.names(directory / "checkpoints"):
        path = directory / "checkpoints" / name / "manifest.json"
        path.write_text(json.dumps({"format": 1, "sha256": json.loads(path.read_text())["sha256"]}))
    assert Run.load(directory).train().finished


def test_other_data_is_refused_and_can_be_accepted(tmp_path: Path) -> None:
    from tests.tiny_control import gather

    data = gather("CartPole-v1", 200).save(tmp_path / "data")
    options: dict[str, Any] = {"offline": str(data), "online_steps": 0}
    run = Run.create(tmp_path / "run", small("bc", "CartPole-v1", **options))
    with pytest.raises(Interrupted):
        run.train(progress=StopAfter(2))
    shutil.rmtree(data)
    gather("CartPole-v1", 200, seed=1).save(tmp_path / "data")
    with pytest.raises(RheostatError, match="began with other data"):
        Run.load(tmp_path / "run")
    run = Run.load(tmp_path / "run", accept_changes=True).train()
    assert any("began with other data" in each for each in run.summary["warnings"])
