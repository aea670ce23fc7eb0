"""Opening a run: the checkpoint it resumes from, and what is refused before it resumes."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """A checkpoint that a run resumes from.

    Attributes:
        path: of the checkpoint.
        state: what it holds.
        manifest: its description of itself and of the run's other files.
        warnings: one sentence for everything that was passed over or cannot be checked.
    """

    path: Path
    state: dict[str, Any]
    manifest: dict[str, Any]
    warnings: list[str]

    @property
    def identity(self) -> Identity | None:
        """Identity of the run; None for versions that did not store it."""
        return self.manifest.get("identity")

    @property
    def log(self) -> Counted:
        """Length and digest of the log; without a digest for versions that stored none."""
        return self.manifest.get("files", {}).get(METRICS, {"bytes": self.state["metrics_bytes"]})

    def other_files(self, directory: Path) -> dict[str, Counted]:
        """The run's other files as they were then; as they are now for versions that did not count them."""
        return {name: counted for name, counted in self.manifest.get("files", count_whole(directory)).items() if name != METRICS}


def open_checkpoint(directory: Path, at: str | None, *, to_continue: bool) -> Opened:
    """Read the checkpoint at which a run is opened.

    Args:
        directory: of the run.
        at: its name; None takes the newest that is whole.
        to_continue: pass over checkpoints whose log was cut or altered, too.

    Raises:
        RheostatError: there is no such checkpoint, or none is whole.
    """
    folder, warnings = directory / "checkpoints", list[str]()
    if at is None:
        at, state, warnings = checkpoint.read_newest(folder, _refuse_log if to_continue else None)
    elif at in (kept := checkpoint.names(folder)):
        state = checkpoint.read(folder / at)
    else:
        raise unknown(f"checkpoint of {directory}", at, kept)
    manifest = checkpoint.read_manifest(folder / at)
    if "files" not in manifest:
        warnings.append(f"{folder / at} is of a version that kept no digest of the log: it cannot be checked.")
    return Opened(folder / at, state, manifest, warnings)


def _refuse_log(path: Path) -> None:
    """Refuse a checkpoint whose log was cut or altered."""
    log = path.parent.parent / METRICS
    counted = checkpoint.read_manifest(path).get("files", {}).get(METRICS)
    wrong = None if counted is None else fault(log, counted)
    if wrong is not None:
        raise RheostatError(f"The checkpoint {path} cannot be continued from: {log} {wrong}.")


def refuse_without_objects(directory: Path, description: dict[str, Any], task: Any, policy: Any) -> None:
    """Refuse to open a run without the method and the Python objects that it was trained with.

    Args:
        directory: of the run.
        description: its ``config.json``.
        task, policy: the objects; None where they are not passed.

    Raises:
        RheostatError: naming what is missing. A control run whose environment is described opens without it.
    """
    method = description["settings"].method
    if not table.known(method):
        raise RheostatError(
            f"{directory} was trained with the method {method}, which is not in the library: add the file or the package that has it "
            "(--methods FILE.py; in Python, import the file)."
        )
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


def larger_settings(directory: Path, before: Settings, steps: int | None, online_steps: int | None) -> Settings:
    """A run's settings with a larger budget.

    Args:
        directory: of the run.
        before: its settings.
        steps, online_steps: the new budget in all; None keeps the old one.

    Raises:
        RheostatError: it is not larger, or the run cannot have more of such steps.
    """
    data_first = getattr(table.entry(before.method).load(), "uses_data", "no") == "first"
    if steps is not None and data_first:
        raise RheostatError(
            f"{directory} began with a data set, and its steps are gradient steps on it: let it act with --online-steps, or begin a new "
            "run with its weights (--from-run)."
        )
    if online_steps is not None and not data_first:
        raise RheostatError(f"online_steps follow a data set, and {before.method} does not begin with one: name more --steps.")
    for name, value in (("steps", steps), ("online_steps", online_steps)):
        if value is not None and value < getattr(before, name):  # an equal budget continues a run that a rule stopped early
            flag = name.replace("_", "-")
            raise RheostatError(
                f"{directory} has a budget of {getattr(before, name):,} {name}: --{flag} is the new budget in all, so name a larger one."
            )
    return replace(
        before,
        steps=before.steps if steps is None else steps,
        online_steps=before.online_steps if online_steps is None else online_steps,
    )


def growth(before: Settings, larger: Settings, spent: int) -> str:
    """The note of a run that its budget grew.

    Args:
        before, larger: its settings.
        spent: steps before that.
    """
    said = f"The budget grew from {before.budget:,} to {larger.budget:,} at step {spent:,}"
    if larger.online_steps > before.online_steps:
        said += f", with {larger.online_steps:,} environment steps after the data set"
    return f"{said}: what falls over the budget, such as an annealed step size, is computed for the new one from there on."


def another_run(directory: Path, changes: list[str]) -> RheostatError:
    """The error for a run whose identity has changed since it began.

    Args:
        directory: of the run.
        changes: the differences, one sentence each.
    """
    return RheostatError(
        f"{directory} would go on as another run: {' '.join(changes)} Put back what it was, or go on with it all the same "
        "(--accept-changes, or accept_changes=True), which the run and its report then say."
    )
