"""A study that is stopped: finished cells are kept, nobody is left behind, and a second call ends like an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from rheostat.experiments.studies.results import run_study
from tests.experiments.studies.toy import study
run_study(study(), pilot=True, seeds=3, jobs=2, cells=Path(sys.argv[1]) / "cells", output=Path(sys.argv[1]))
"""


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], stderr=subprocess.PIPE, text=True, start_new_session=True)


def members(group: int) -> list[int]:
    """Processes of a session that are still there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_continued(number: int, tmp_path: Path) -> None:
    first = start(tmp_path)
    assert first.stderr is not None
    while "[1/6]" not in first.stderr.readline():
        assert first.poll() is None
    os.kill(first.pid, number)
    first.wait(60)
    deadline = time.monotonic() + 60
    while members(first.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(first.pid) == []
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*/result.json")}
    assert 1 <= len(kept) < 6 and not (tmp_path / "pilots" / "toy.json").exists()
    second = start(tmp_path)
    _, said = second.communicate(timeout=300)
    assert second.returncode == 0 and f"{len(kept)} of 6 cells are stored" in said
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert json.loads((tmp_path / "pilots" / "toy.json").read_text())["provenance"]["cells"] == 6
