"""One writer per run: who holds a lock, who may take it over, and what is left of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rheostat import locks
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.experiments.comparison import compare, plan
from rheostat.locks import Locked, Owner, held
from rheostat.training.run import Run
from rheostat.training.run_directory import LOCK
from tests.tiny_control import small

HOLD = """
import pathlib, sys, time
from rheostat.locks import held
with held(pathlib.Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds ``tmp_path / "here" / "lock.json"``."""
    (tmp_path / "here").mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "here" / LOCK)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_living_owner_keeps_others_out_and_a_dead_one_does_not(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    path, said = tmp_path / "here" / LOCK, []
    with pytest.raises(Locked, match=f"Process {holder.pid} is writing the run"), held(path, "the run"):
        pass
    shutil.copytree(tmp_path / "here", tmp_path / "copy")
    with held(tmp_path / "copy" / LOCK, "the run"):  # nobody writes the copy
        pass
    (tmp_path / "here").rename(tmp_path / "there")
    path = tmp_path / "there" / LOCK
    with pytest.raises(Locked), held(path, "the run"):  # it was moved under its writer
        pass
    holder.kill()  # and nobody waits for it: what is left of it is a zombie
    while locks._started(holder.pid) is not None:
        time.sleep(0.01)
    with held(path, "the run", say=said.append):
        assert locks.read_owner(path) == dataclasses.replace(Owner.here(path), token=locks.read_owner(path).token)  # type: ignore[union-attr]
    assert said == [f"Process {holder.pid}, which was writing the run, is gone: its lock is taken over."]
    assert list(path.parent.iterdir()) == []


def test_waiting_for_an_owner(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        holder.kill()

    with held(tmp_path / "here" / LOCK, "it", patience=600, say=say):
        pass
    assert said[0] == f"Process {holder.pid} is writing it: waiting for it."


@pytest.mark.parametrize("links", [True, False])
def test_it_is_released_whatever_happens(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(locks.NO_LINKS[0], "no links")))
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), held(tmp_path / LOCK, "it"):
            with pytest.raises(Locked), held(tmp_path / LOCK, "it"):
                pass
            raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"host": "elsewhere"}, r"of the machine elsewhere .*, remove .*lock.json"),
        ({"pids": "another container"}, r"cannot be seen from here.*remove"),
        ({"boot": "before the machine was restarted"}, "taken"),
        ({"started": "another process of this number"}, "taken"),
        ({"host": "elsewhere", "folder": "/elsewhere", "inode": 1}, "taken"),
        ({"pid": "one"}, r"not by whom.*remove that file"),
    ],
)
def test_what_is_left_of_an_owner(changes: dict[str, Any], outcome: str, tmp_path: Path) -> None:
    path = tmp_path / LOCK
    path.write_text(json.dumps(dataclasses.asdict(Owner.here(path))))
    change(path, **changes)
    if outcome == "taken":
        with held(path, "it"):
            pass
        assert not path.exists()
    else:
        with pytest.raises(Locked, match=outcome), held(path, "it"):
            pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="Cannot lock it"), held(tmp_path / "missing" / LOCK, "it"):
        pass


def test_the_second_of_two_resumes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "run"
    Run.create(directory, small("ppo", steps=10**9, checkpoint_every=10**8)).close()
    assert not (directory / LOCK).exists()
    command = [sys.executable, "-m", "rheostat.cli", "resume", str(directory)]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not (directory / "metrics.jsonl").exists() and first.poll() is None:
            time.sleep(0.02)
        with pytest.raises(SystemExit) as second:
            main(["resume", str(directory)])
        assert second.value.code == 2
        assert f"Error: Process {first.pid} is writing the run in {directory}" in capsys.readouterr().err
        first.send_signal(signal.SIGINT)
        assert first.wait() == 130 and not (directory / LOCK).exists()
    finally:
        first.kill()
        first.wait()


def test_a_run_that_was_continued_elsewhere_is_opened_again(tmp_path: Path) -> None:
    Run.create(tmp_path, small("ppo"))
    early, late = Run.load(tmp_path), Run.load(tmp_path)
    late.train()
    with pytest.raises(RheostatError, match="open it again"):
        early.train()
    assert Run.load(tmp_path).metrics == late.metrics


def test_two_comparisons_in_one_directory(tmp_path: Path) -> None:
    options: dict[str, Any] = {"seeds": 1, "steps": 64, "num_envs": 4, "batch_steps": 64, "minibatches": 2}
    cells, where, _ = plan(["ppo"], "CartPole-v1", directory=tmp_path / "compare", **options)
    with held(where / LOCK, "it"), pytest.raises(Locked, match=f"Process {os.getpid()} is writing the runs in"):
        compare(["ppo"], "CartPole-v1", directory=where, progress=False, jobs=1, **options)
    assert not cells[0].directory.exists()
