"""Opening a run: which checkpoint it goes on from, and what is refused before it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError, unknown
from rheostat.methods import table
from rheostat.training import checkpoint
from rheostat.training.identity import Identity
from rheostat.training.logs import METRICS, Counted, count_whole, fault
from rheostat.training.settings import CUSTOM, Settings


@dataclass(frozen=True)
class Opened:
    """A checkpoint that a run goes on from.

    Attributes:
        path: of the checkpoint.
        state: what it holds.
        manifest: what it says about itself and about the run's other files.
        notes: one sentence for everything that was passed over or cannot be checked.
    """

    path: Path
    state: dict[str, Any]
    manifest: dict[str, Any]
    notes: list[str]

    @property
    def identity(self) -> Identity | None:
        """What the run is; None of a version that did not note it."""
        return self.manifest.get("identity")

    @property
    def log(self) -> Counted:
        """How much of the log there was; without a digest of a version that kept none."""
        return self.manifest.get("files", {}).get(METRICS, {"bytes": self.state["metrics_bytes"]})

    def other_files(self, directory: Path) -> dict[str, Counted]:
        """The run's files besides the log as they were then; as they are now of a version that did not count them."""
        return {name: counted for name, counted in self.manifest.get("files", count_whole(directory)).items() if name != METRICS}


def open_checkpoint(directory: Path, at: str | None, *, to_continue: bool) -> Opened:
    """Read the checkpoint that a run is opened at.

    Args:
        directory: of the run.
        at: its name; None takes the newest that is whole.
        to_continue: pass over checkpoints whose log was cut or altered, too.

    Raises:
        RheostatError: there is no such checkpoint, or none is whole.
    """
    folder, notes = directory / "checkpoints", list[str]()
    if at is None:
        at, state, notes = checkpoint.read_newest(folder, _refuse_log if to_continue else None)
    elif at in (kept := checkpoint.names(folder)):
        state = checkpoint.read(folder / at)
    else:
        raise unknown(f"checkpoint of {directory}", at, kept)
    manifest = checkpoint.read_manifest(folder / at)
    if "files" not in manifest:
        notes.append(f"{folder / at} is of a version that kept no digest of the log: it cannot be checked.")
    return Opened(folder / at, state, manifest, notes)


def _refuse_log(path: Path) -> None:
    """Refuse a checkpoint whose log was cut or altered."""
    log = path.parent.parent / METRICS
    counted = checkpoint.read_manifest(path).get("files", {}).get(METRICS)
    wrong = None if counted is None else fault(log, counted)
    if wrong is not None:
        raise RheostatError(f"The checkpoint {path} cannot be continued from: {log} {wrong}.")


def refuse_without_objects(directory: Path, description: dict[str, Any], task: Any, policy: Any) -> None:
    """Refuse to open a run without the Python objects that it was trained on.

    Args:
        directory: of the run.
        description: its ``config.json``.
        task, policy: the objects; None where they are not handed over.

    Raises:
        RheostatError: naming what is missing. A control run whose environment is described opens without it.
    """
    name = description["settings"].task
    if name.startswith(CUSTOM) and task is None and description.get("environment") is None:
        raise RheostatError(
            f"{directory} was trained on a Python environment or other object ({name.removeprefix(CUSTOM)}): open it with "
            "rheostat.load(directory, task=...), handing over the environment or task, or with the prompts=... and rewards=... that "
            "were objects."
        )
    if policy is None and description.get("network"):
        raise RheostatError(
            f"{directory} was trained with a network of your own ({description['network']}): open it in Python with "
            "rheostat.load(directory, policy=...) (or resume), handing over a network of the same shape."
        )


def refuse_growth(directory: Path, settings: Settings) -> None:
    """Refuse a larger budget for a run whose steps are gradient steps on a data set.

    Raises:
        RheostatError: it is one.
    """
    if settings.offline is not None and getattr(table.entry(settings.method).load(), "uses_data", "no") == "first":
        raise RheostatError(
            f"{directory} began with a data set, and its steps are gradient steps on it: start a new run with more --steps or "
            "--online-steps."
        )


def another_run(directory: Path, changes: list[str]) -> RheostatError:
    """The error for a run that is not what it was when it began.

    Args:
        directory: of the run.
        changes: what is different, in sentences.
    """
    return RheostatError(
        f"{directory} would go on as another run: {' '.join(changes)} Put back what it was, or go on with it all the same "
        "(--accept-changes, or accept_changes=True), which the run and its report then say."
    )
