"""One run of a comparison in a process of its own: ``python -m rheostat.experiments.worker``, its job as one JSON line on stdin.

The pipe stays open while the parent lives; when it closes, the parent is gone, and the worker saves its run and stops, as on SIGTERM.
A lock makes sure that a worker still saving and the one that resumes it are never in the same directory together.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.locks import held

PATIENCE = 120.0
"""Seconds that a worker has to save its run when its parent is gone."""
FINISHED, FAILED, STOPPED = 0, 1, 75
"""Exit statuses."""


def work(job: dict[str, Any]) -> int:
    """Create or continue one run and train it to its end.

    Args:
        job: ``directory``, ``settings`` (as saved in a run's configuration), ``command`` (stored in the run) and ``lock`` (a file).

    Returns:
        One of the exit statuses.
    """
    from rheostat.training import checkpoint
    from rheostat.training.progress import Silent
    from rheostat.training.run import Interrupted, Run
    from rheostat.training.settings import Settings
    from rheostat.training.trust import trusting

    directory = Path(job["directory"])
    sys.argv = shlex.split(job["command"])  # the run stores it as the command that makes it
    try:
        with held(Path(job["lock"]), f"the run in {directory}", patience=PATIENCE, say=lambda note: print(note, file=sys.stderr)):
            if checkpoint.names(directory / "checkpoints"):
                with trusting(Run.settings_in(directory) == Settings(**job["settings"])):  # which the parent may run
                    run = Run.load(directory, to_continue=True)
                for note in run.warnings:
                    print(note, file=sys.stderr)
            else:  # no run, or one that was stopped before its first checkpoint
                if directory.exists():
                    shutil.rmtree(directory)
                run = Run.create(directory, Settings(**job["settings"]))
            if not run.finished:
                run.train(progress=Silent())
            run.close()
    except Interrupted:
        return STOPPED
    except RheostatError as error:
        print(error, file=sys.stderr)
        return FAILED
    return FINISHED


def stop_with_parent() -> None:
    """Ask this process to stop as soon as its stdin closes."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Read the job and run it."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered, so that the watcher reads the rest
        part = os.read(0, 1)
        if not part:
            return STOPPED
        line += part
    stop_with_parent()
    return work(json.loads(line))


if __name__ == "__main__":
    sys.exit(main())
