"""The log is a part of the checkpoint: what was cut or altered is seen, by the run and by every reader."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rheostat.analysis.records import group_arms, read_record
from rheostat.analysis.summaries import summarise
from rheostat.errors import RheostatError
from rheostat.reporting.report import render
from rheostat.training import checkpoint
from rheostat.training.run import Interrupted, Run
from tests.tiny_control import small
from tests.training.test_run import StopAfter


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, stopped."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "stopped", small("ppo"))
    with pytest.raises(Interrupted):
        run.train(progress=StopAfter(12))
    return run.directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, finished."""
    return Run.create(tmp_path_factory.mktemp("runs") / "whole", small("ppo")).train().directory


def cut(text: bytes) -> bytes:
    return text[:-40]


def cut_short(text: bytes) -> bytes:
    return text[: len(text) // 8]


def alter(text: bytes) -> bytes:
    lines = text.splitlines(keepends=True)
    row = json.loads(lines[-2])
    row["episode_return"] = 1e6
    return b"".join([*lines[:-2], (json.dumps(row) + "\n").encode(), lines[-1]])


def gone(text: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(("harm", "again"), [(cut, True), (alter, True), (cut_short, False), (gone, False)])
def test_a_log_that_is_not_what_was_counted(
    harm: Callable[[bytes], bytes], again: bool, stopped: Path, whole: Path, tmp_path: Path
) -> None:
    """It is computed again from a checkpoint whose part of it is whole, or it is refused by name."""
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    log = directory / "metrics.jsonl"
    log.write_bytes(harm(log.read_bytes()))
    found = read_record(directory)
    assert len(found.faults) == 1 and str(log) in found.faults[0]
    with pytest.raises(RheostatError, match=f"{log} (was cut|is not what)"):
        Run.load(directory).train()
    if not again:
        with pytest.raises(RheostatError, match=f"No usable checkpoint is left.*{log}"):
            Run.load(directory, to_continue=True)
        return
    run = Run.load(directory, to_continue=True)
    assert len(run.warnings) == 1 and str(log) in run.warnings[0]
    run.train()
    assert log.read_bytes() == (whole / "metrics.jsonl").read_bytes() and read_record(directory).faults == ()


def test_a_finished_run_whose_log_was_cut_is_made_whole(whole: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(whole, tmp_path / "run"))
    log = directory / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    assert "was cut" in read_record(directory).faults[0]
    Run.load(directory, to_continue=True).train()
    assert log.read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_what_readers_say_of_it(whole: Path, tmp_path: Path) -> None:
    """A run whose files are not what was counted is named, and does not count."""
    for file in ("metrics.jsonl", "summary.json", "config.json"):
        directory = Path(shutil.copytree(whole, tmp_path / file))
        path = directory / file
        path.write_text(path.read_text().replace("1", "2", 1))
        record = read_record(directory)
        rows, notes = summarise(group_arms([record])[record.task])
        assert rows[0].seeds == () and rows[0].unfinished == () and any(f"{path} is not what the run wrote" in note for note in notes)
        assert f"{path} is not what the run wrote" in render([record])
    assert read_record(whole).faults == () and read_record(whole).notes == ()


def test_timings_are_only_appended_to(stopped: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    path = directory / "timings.jsonl"
    with path.open("a") as file:
        file.write('{"iteration": 999, "steps": 1, "seconds": 1e9}\n{"iteration": 3, "ste')
    before = path.read_bytes()
    run = Run.load(directory).train()
    assert path.read_bytes().startswith(before + b"\n")
    assert [row["iteration"] for row in run.timings if row["iteration"] != 999] == [row["iteration"] for row in run.metrics]
    assert max(row["seconds"] for row in run.timings if row["iteration"] != 999) < 1e9


def as_version_1(directory: Path) -> None:
    """Checkpoints as they were before they counted anything."""
    for name in checkpoint.names(directory / "checkpoints"):
        path = directory / "checkpoints" / name / "manifest.json"
        path.write_text(json.dumps({"format": 1, "sha256": json.loads(path.read_text())["sha256"]}))


def test_checkpoints_of_the_version_before(stopped: Path, whole: Path, tmp_path: Path) -> None:
    """They go on, and say that their log cannot be checked; one that is too short is refused all the same."""
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    as_version_1(directory)
    assert "cannot be told" in read_record(directory).notes[0]
    shutil.copytree(directory, tmp_path / "short")
    run = Run.load(directory, to_continue=True)
    assert "kept no digest" in run.warnings[0]
    run.train()
    assert (directory / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    (tmp_path / "short" / "metrics.jsonl").write_text("")
    with pytest.raises(RheostatError, match=r"was cut: 0 of the"):
        Run.load(tmp_path / "short").train()


def test_a_checkpoint_of_a_later_version_is_refused(stopped: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    for name in checkpoint.names(directory / "checkpoints"):
        path = directory / "checkpoints" / name / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(RheostatError, match="has the format 99, which this version of Rheostat does not read"):
        Run.load(directory)


def test_copies_under_other_names_are_no_checkpoints(stopped: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(stopped, tmp_path / "run"))
    oldest = checkpoint.names(directory / "checkpoints")[0]
    for name in ("best", f"old-{oldest}", "z"):
        shutil.copytree(directory / "checkpoints" / oldest, directory / "checkpoints" / name)
    Run.load(directory).train()
    assert {"best", f"old-{oldest}", "z"} < {path.name for path in (directory / "checkpoints").iterdir()}
