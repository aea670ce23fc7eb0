"""A run of somebody else executes no code unasked."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import rheostat
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.training import trust
from rheostat.training.run import Run
from rheostat.training.trust import code_of
from tests.tiny_control import small

MODULE = """
from pathlib import Path
import gymnasium
Path(__file__).with_name("executed").touch()
if "Theirs-v0" not in gymnasium.registry:
    gymnasium.register("Theirs-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=50)
"""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on an environment of a module, which leaves a file whenever it is executed."""
    (tmp_path / "theirs_to_run.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RHEOSTAT_CACHE", str(tmp_path / "cache"))
    sys.modules.pop("theirs_to_run", None)
    settings = small("ppo", task="theirs_to_run:Theirs-v0", backend="gymnasium", steps=128, checkpoint_every=128)
    Run.create(tmp_path / "run", settings).train()
    sys.modules.pop("theirs_to_run")  # so that it is executed again where it is asked for
    (tmp_path / "executed").unlink()
    return tmp_path / "run"


def executed(run: Path) -> bool:
    return (run.parent / "executed").exists()


def test_a_run_that_was_begun_here_is_opened_unasked(begun: Path) -> None:
    assert code_of(Run.settings_in(begun)) == ["the environment theirs_to_run:Theirs-v0"]
    rheostat.load(begun).evaluate(1)
    assert executed(begun)


@pytest.mark.parametrize("door", ["resume", "evaluate", "export", "ope", "disagree", "train"])
def test_every_door_asks_before_a_copy_executes_anything(door: str, begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = str(shutil.copytree(begun, begun.parent / "copy"))
    words = {
        "resume": [copy, "--steps", "256"],
        "ope": [copy, "--offline", copy],
        "disagree": [copy, "ppo", "a2c"],
        "train": ["ppo", "--config", copy],
    }
    with pytest.raises(SystemExit) as stop:
        main([door, *words.get(door, [copy])])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "would run the environment theirs_to_run:Theirs-v0" in said and "--trust" in said
    assert not executed(begun)


def test_whoever_trusts_a_copy_says_so(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(begun, begun.parent / "copy")
    with pytest.raises(RheostatError, match="would run the environment"):
        rheostat.load(copy)
    assert rheostat.load(copy, trust=True).evaluate(1)
    main(["evaluate", str(copy), "--episodes", "1", "--trust", "--json"])
    assert "evaluation_return" in json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["list", "--trust"])
    assert "goes once with a command that opens runs" in capsys.readouterr().err


def test_reading_executes_nothing(begun: Path) -> None:
    copy = shutil.copytree(begun, begun.parent / "copy")
    main(["report", str(copy), "--output", str(begun.parent / "report.html")])
    assert (begun.parent / "report.html").exists() and not executed(begun)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("rheostat train ppo theirs_to_run:Theirs-v0", "which is none of compare, sweep, tune"),
        ("rheostat compare ppo a2c --task x", "would run the command"),
    ],
)
def test_a_comparison_of_others_runs_no_command_of_its_own(
    command: str, said: str, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun.parent / "compare"
    folder.mkdir()
    settings = {name: value for name, value in json.loads((begun / "config.json").read_text())["settings"].items() if name != "seed"}
    manifest = {"task": "x", "methods": ["ppo"], "cells": ["ppo-s0"], "seeds": 1, "settings": {"ppo": settings}, "command": command}
    (folder / "compare.json").write_text(json.dumps(manifest))
    with pytest.raises(SystemExit):
        main(["resume", str(folder)])
    assert said in capsys.readouterr().err and not executed(begun)


def test_the_oldest_notes_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is bounded, however many runs are begun."""
    monkeypatch.setenv("RHEOSTAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trust, "MOST_NOTED", 3)
    for number in range(5):
        trust.remember(tmp_path / f"run-{number}", ["the reward r.py"])
        for index, note in enumerate(sorted((tmp_path / "cache" / "begun").iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(note, ns=(index, index))  # in the order of their making, however coarse the clock
    assert len(list((tmp_path / "cache" / "begun").iterdir())) == 3
    trust.require_begun(tmp_path / "run-4", ["the reward r.py"])
    with pytest.raises(RheostatError, match="was not begun in this place"):
        trust.require_begun(tmp_path / "run-0", ["the reward r.py"])
