"""What machines do to runs: full disks, places that cannot be written, clocks that jump, storms of signals."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import Interrupted, RheostatError
from rheostat.training import checkpoint
from rheostat.training.run import Run
from tests.crash import differences
from tests.tiny_control import small


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    Run.create(directory, small("ppo")).train()
    return directory


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_disk_that_fills_up_costs_nothing_that_was_saved(call: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = checkpoint.save_file, [0]

    def fills_up(*given: Any, **more: Any) -> None:
        calls[0] += 1
        if calls[0] > call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*given, **more)

    monkeypatch.setattr(checkpoint, "save_file", fills_up)
    with pytest.raises(RheostatError, match="the disk is full; earlier checkpoints are intact, make room and resume the run"):
        Run.create(tmp_path / "run", small("ppo")).train()
    monkeypatch.undo()
    Run.load(tmp_path / "run", to_continue=True).train()
    assert differences(whole, tmp_path / "run") == []


def test_a_place_that_cannot_be_written_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, *given: Any, **more: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(RheostatError, match=r"Cannot write to .*Read-only file system"):
        Run.create(tmp_path / "run", small("ppo"))
    assert list(tmp_path.iterdir()) == []


def test_clocks_that_jump_change_no_number(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = time.time, [0]

    def jumps() -> float:
        calls[0] += 1
        return real() + (1e7 if calls[0] % 2 else -1e7)

    monkeypatch.setattr(time, "time", jumps)
    run = Run.create(tmp_path / "run", small("ppo")).train()
    assert differences(whole, tmp_path / "run") == []
    assert all(row["seconds"] >= 0 for row in run.timings)


class Storm:
    """A callback that asks the run to stop, many times over, at every update."""

    def on_update(self, run: Run, metrics: dict[str, Any]) -> None:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_storm_of_signals_stops_a_run_in_good_order(whole: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run, stops = Run.create(tmp_path / "run", small("ppo")), 0
    while not run.finished:
        try:
            run.train(callbacks=[Storm()])
        except Interrupted:
            stops += 1
            run = Run.load(tmp_path / "run", to_continue=True)
    assert stops > 3 and differences(whole, tmp_path / "run") == []
    assert signal.getsignal(signal.SIGTERM) is before
