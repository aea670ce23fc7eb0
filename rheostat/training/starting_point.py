"""The starting point of a run that begins with another run's weights: the run and checkpoint, what is loaded, and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.learner.starting_weights import StartingWeights
from rheostat.methods import table
from rheostat.options import flatten
from rheostat.training import checkpoint
from rheostat.training.callbacks import best_in
from rheostat.training.identity import digest_of
from rheostat.training.logs import METRICS, read_jsonl
from rheostat.training.opening import open_checkpoint
from rheostat.training.run_directory import CONFIG, read_description
from rheostat.training.settings import CUSTOM, Settings

OF_THE_MODEL = ("model", "adapter_rank", "adapter_alpha", "adapter_targets", "adapter_dropout")
"""Settings that a language run takes from the one it begins with, where it does not set them itself."""
NETWORK_OPTIONS = ("activation", "tanh_mean", "log_std", "lstm_units", "mixture_size")
"""Options of methods that define a network, in addition to those that end with ``hidden``."""


@dataclass(frozen=True)
class StartingPoint:
    """A policy of another run.

    Attributes:
        weights: of its models.
        facts: their origin, as JSON.
    """

    weights: StartingWeights
    facts: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The run's note on its starting point."""
        weights, facts = self.weights, self.facts
        new = f" New are: {', '.join(dict.fromkeys(weights.new))}." if weights.new else ""
        return (
            f"It began with the weights of {facts['run']} ({facts['method']} on {facts['task']}, seed {facts['seed']}, "
            f"{facts['policy']} at step {facts['steps']:,}): {', '.join(dict.fromkeys(weights.taken))}.{new}"
        )


def place_of(path: str | Path) -> tuple[Path, str | None]:
    """The directory of a run, and which of its policies: the name of a checkpoint, ``best``, or None for the newest one.

    Args:
        path: of the run, of the folder ``best`` in it, or of one of its checkpoints.

    Raises:
        RheostatError: there is no run.
    """
    path = Path(path)
    if path.name == "best" and (path.parent / CONFIG).is_file():
        return path.parent, "best"
    if path.parent.name == "checkpoints" and (path.parent.parent / CONFIG).is_file():
        return path.parent.parent, path.name
    read_description(path)
    return path, None


def with_its_model(options: dict[str, Any]) -> dict[str, Any]:
    """The settings of a language run with those about the model from the run it begins with, where they are not given.

    Raises:
        RheostatError: there is no run, or it trained no language model.
    """
    from rheostat.tasks.language.task_list import TASKS

    directory, _ = place_of(options["from_run"])
    theirs: Settings = read_description(directory)["settings"]
    refuse_other_domain(directory, theirs, "language")
    said = {name: getattr(theirs, name) for name in OF_THE_MODEL}
    if said["model"] is None and theirs.task in TASKS:
        said["model"] = TASKS[theirs.task]().base
    if str(said["model"] or "").startswith(CUSTOM):
        del said["model"]
    return options | {name: value for name, value in said.items() if not options.get(name)}


def refuse_other_domain(directory: Path, theirs: Settings, domain: str) -> None:
    """Refuse to begin with what another kind of method has trained.

    Raises:
        RheostatError: it is one.
    """
    its = table.entry(theirs.method).domain
    if its != domain:
        kinds = {"control": "a control policy", "language": "a language model", "compression": "controllers that compress"}
        raise RheostatError(f"{directory} has trained {kinds[its]}, and this run trains {kinds[domain]}: begin with a run of its kind.")


def starting_point(settings: Settings) -> StartingPoint | None:
    """The starting point of a new run; None where it begins from initial weights.

    Raises:
        RheostatError: there is no such run or checkpoint, or its networks are others.
    """
    if settings.from_run is None:
        return None
    directory, at = place_of(settings.from_run)
    theirs: Settings = read_description(directory)["settings"]
    domain = table.entry(settings.method).domain
    refuse_other_domain(directory, theirs, domain)
    if domain == "control":
        refuse_other_networks(directory, theirs, settings)
    steps: int
    if at == "best":
        known = best_in(directory)
        state, steps, policy, place = _best_state(directory), known["steps"], "its best policy", directory / "best"
    else:
        found = open_checkpoint(directory, at, to_continue=False)
        iteration = found.state["iteration"]
        rows = [row["steps"] for row in read_jsonl(directory / METRICS) if row["iteration"] <= iteration]
        state, steps, policy, place = found.state["method"], rows[-1] if rows else 0, "its policy", found.path
    facts = {"run": str(directory), "method": theirs.method, "task": theirs.task, "seed": theirs.seed, "steps": steps, "policy": policy}
    kept = next(each for each in (place / "model", place / "policy", place) if each.is_dir())
    return StartingPoint(StartingWeights(state, f"The run in {directory}"), facts | {"sha256": digest_of(kept)})


def _best_state(directory: Path) -> dict[str, Any]:
    """The state of a run's best policy: a control policy's models, or a language model's weights."""
    folder = directory / "best"
    if not (folder / "model").is_dir():
        return checkpoint.read(folder / "policy")
    from rheostat.policies.language.model import LanguagePolicy

    return {"models.policy": {"network": dict(LanguagePolicy.load(folder / "model").state_dict())}}


def refuse_other_networks(directory: Path, theirs: Settings, mine: Settings) -> None:
    """Refuse options of networks that differ; weights of one shape may be those of another network."""
    there, here = (dict(_network_options(each)) for each in (theirs, mine))
    for name in there.keys() & here.keys():
        if there[name] != here[name]:
            raise RheostatError(
                f"The run in {directory} does not fit: {name} is {there[name]} there and {here[name]} here, so give this run the same "
                f"--{name.replace('_', '-')} (--config {directory} takes all of its options)."
            )


def _network_options(settings: Settings) -> Iterator[tuple[str, Any]]:
    for path, value in flatten(json.loads(json.dumps(settings.config))):
        name = path.rpartition(".")[2]
        if name.endswith("hidden") or name in NETWORK_OPTIONS:
            yield name, value
