"""``rheostat dataset make`` and ``rheostat dataset show``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rheostat.cli import entry as cli

pytest.importorskip("minari", reason="the extra 'offline' (minari[hdf5]) is not installed")


def output(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_made_data_set_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["dataset", "make", "Hopper-v5", "random", "--steps", "120", "--num-envs", "2", "--seed", "3"])
    made = output(capsys)
    assert "uniform actions" in made and "return 3,234.3" in made and "D4RL" in made
    path = Path("datasets/Hopper-v5-random-s3")
    cli.main(["dataset", "show", str(path)])
    shown = output(capsys)
    for words in ("Hopper-v5", "120", "Box(-1.0, 1.0, (3,), float32)", "terminated", "rheostat dataset make Hopper-v5 random", "score"):
        assert words in shown, words
    cli.main(["dataset", "show", str(path), "--json"])
    found = json.loads(output(capsys))
    assert found["steps"] == 120 and found["facts"]["seed"] == 3 and found["reference"]["expert"] == 3234.3
    assert found["action_range"]["least"][0] >= -1 and found["terminated_share"] + found["truncated_share"] == 1


def test_a_second_data_set_in_the_same_place_is_refused_before_anything_is_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["dataset", "make", "Hopper-v5", "random", "--steps", "20", "--num-envs", "1", "--output", str(tmp_path / "set"), "--json"]
    cli.main(words)
    assert json.loads(output(capsys))["path"] == str(tmp_path / "set")
    monkeypatch.setattr("rheostat.training.datasets.make_dataset", lambda *_, **__: pytest.fail("made again"))
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "already holds a data set" in capsys.readouterr().err


def test_options_reach_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "dataset",
        "make",
        "Pendulum-v1",
        "medium-replay",
        "--teacher-steps",
        "500",
        "--teacher-options",
        "gamma",
        "0.8",
        "hidden",
        "[8]",
    ]
    action = cli.parse(words).action
    recipe = action._recipe()
    assert recipe.steps == 500 and recipe.options == {"gamma": 0.8, "learning_rate": 1e-3, "hidden": [8]}
    assert action.kind == "medium-replay" and recipe.evaluation_episodes == 10


def test_a_place_without_a_data_set_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["dataset", "show", "nowhere"])
    assert "There is no data set nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["dataset", "--help"], ["dataset", "make", "--help"], ["dataset", "show", "--help"]])
def test_help_is_there(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0 and "data set" in output(capsys)


@pytest.mark.parametrize("words", [["import", "data.hdf5", "CartPole-v1"], ["make", "CartPole-v1", "random", "--steps", "8"]])
def test_what_is_no_option_of_the_environment_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["dataset", *words, "--environment", "num_envs", "2"])
    assert "num_envs is no option of the environment" in capsys.readouterr().err
