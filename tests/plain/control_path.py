"""What a run did, turn by turn: the rows it learned from, what was random, every step of every optimiser, and the weights at both ends.

Nothing here is told to a method: a run goes its own way, and what passes some places is written down (what was acted and kept, an
optimiser's step, the end of a turn).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheostat.learner.learner import Learner
from rheostat.learner.running import RunningMethod
from rheostat.options import options_of
from rheostat.policies.parameters import Adam
from rheostat.streams import derive_seed
from rheostat.training.building import build_method
from rheostat.training.run import Run
from rheostat.training.settings import Settings

Weights = dict[str, dict[str, Tensor]]
"""By model, then by name of the parameter."""


@dataclass
class Move:
    """A step of an optimiser."""

    model: str
    gradient: dict[str, Tensor]
    """As the optimiser received it, after a limit of its norm."""
    learning_rate: float


@dataclass
class Turn:
    """A turn of the loop.

    Attributes:
        options: of the method, by short name.
        collected: what was acted.
        rows: as the retainers left them, None where nothing is learned: raw observations, actions and rewards.
        columns, facts: beside them.
        start, end: weights before anything moved, and after the turn.
        moves: of optimisers, in order.
        made: gradient steps (or updates) before.
        steps: environment steps so far.
        stage: number of the stage.
        members: the turns of several agents' policies, by their names.
        said: what members of an ensemble scored, who was chosen, and which networks of a model are used, after the turn.
    """

    context: Any
    options: SimpleNamespace
    collected: Any = None
    rows: Any = None
    columns: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    start: Weights = field(default_factory=dict)
    end: Weights = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    random: dict[str, Tensor] = field(default_factory=dict)
    made: int = 0
    steps: int = 0
    stage: int = 0
    said: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Turn] = field(default_factory=dict)
    drawn: dict[str, torch.Generator] = field(default_factory=dict)

    def chance(self, stream: str) -> torch.Generator:
        """A stream of random numbers as it was when the rows had been kept; asked again, it goes on."""
        if stream not in self.drawn:
            generator = torch.Generator().manual_seed(derive_seed(self.context.streams.seed, stream))
            if stream in self.random:
                generator.set_state(self.random[stream])
            self.drawn[stream] = generator
        return self.drawn[stream]

    def again(self) -> Turn:
        """The same with all streams as they were."""
        found = copy.copy(self)
        found.drawn = {}
        return found


def modules(context: Any) -> dict[str, nn.Module]:
    """Everything with weights, by name."""
    found: dict[str, nn.Module] = {}
    for name, model in context.models.items():
        for part in ("critics", "targets", "values"):  # of a behaviour
            if name == "behaviour critics":
                found[f"{name}/{part}"] = getattr(model, part).network
        if name == "world model":
            found[name] = model.ensemble
        elif name == "members":
            found |= {name: model.policies, f"{name}/old": model.old}
        elif name == "acting" or (name == "policy" and hasattr(model, "chosen")):
            continue
        elif name != "behaviour critics":
            network = getattr(model, "policy", None) or model.network
            found[name] = getattr(network, "policy", None) or network
    return found


def weights_of(context: Any) -> Weights:
    """All weights as they are now, copied."""
    return {name: {key: value.detach().clone() for key, value in module.named_parameters()} for name, module in modules(context).items()}


class Watch:
    """Writes turns down.

    Attributes:
        turns: all of them.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.options: SimpleNamespace | None = None

    def options_of(self, method: Any) -> SimpleNamespace:
        """Of the one method that is watched, by short name."""
        if self.options is None:
            self.options = SimpleNamespace(**{each.short: each.value for each in options_of(method.config)})
        return self.options

    def begin(self, context: Any, options: SimpleNamespace) -> None:
        """A turn begins."""
        self.turns.append(Turn(context, options))

    def of(self, context: Any) -> Turn:
        """The present turn, or that of one policy of several agents in it."""
        turn = self.turns[-1]
        if context is turn.context:
            return turn
        return turn.members.setdefault(context.name, Turn(context, turn.options))

    def collected(self, context: Any, rows: Any) -> None:
        """Somebody has acted."""
        self.of(context).collected = rows.clone()

    def kept(self, context: Any, batch: Any) -> None:
        """The retainers are done."""
        turn = self.of(context)
        turn.made, turn.stage = context.updates, getattr(context, "stage", 0)
        if not len(batch.rows) or not batch.rows.numel():
            return
        turn.rows = batch.rows.clone()
        turn.columns, turn.facts = {name: value.clone() for name, value in batch.columns.items()}, dict(batch.facts)
        turn.start = weights_of(context)
        turn.random = {name: state.clone() for name, state in context.streams.state_dict()["streams"].items()}

    def moved(self, vector: Tensor, learning_rate: float) -> None:
        """An optimiser is about to make a step."""
        for turn in (self.turns[-1], *self.turns[-1].members.values()):
            for name, module in [] if turn.rows is None else list(modules(turn.context).items()):
                named = dict(module.named_parameters())
                if next(iter(named.values())).data_ptr() == vector.data_ptr():
                    gradient = {key: torch.zeros_like(value) if value.grad is None else value.grad.clone() for key, value in named.items()}
                    turn.moves.append(Move(name, gradient, learning_rate))
                    return
        raise AssertionError("an optimiser moved what no model has")

    def ended(self, context: Any) -> None:
        """A turn is over."""
        for turn in self.turns[-1].members.values():
            turn.end, turn.steps = weights_of(turn.context), turn.context.steps
        turn = self.turns[-1]
        if turn.members:
            return
        turn.end, turn.steps = weights_of(context), context.collector.steps
        if "members" in context.models:
            members, model = context.models["members"], context.models["world model"]
            turn.said = {"scores": members.scores.tolist(), "best": members.best.tolist(), "elites": model.elites.tolist()}
            turn.said["chosen"] = context.models["policy"].chosen


@contextmanager
def watching() -> Iterator[Watch]:
    """Inside, what runs do is written down."""
    watch, adam, rmsprop = Watch(), Adam.step, torch.optim.RMSprop.step
    turn, collect, retain = RunningMethod.turn, Learner.collect, Learner.retain

    def watched_turn(self: Any) -> Any:
        watch.begin(self.context, watch.options_of(self))
        found = turn(self)
        watch.ended(self.context)
        return found

    def watched_collect(self: Any) -> Any:
        found = collect(self)
        watch.collected(self.context, found.rows)
        return found

    def watched_retain(self: Any, batch: Any) -> Any:
        found = retain(self, batch)
        watch.kept(self.context, found)
        return found

    def watched_step(step: Any) -> Any:
        def inner(self: Any, *values: Any) -> Any:
            watch.moved(self.param_groups[0]["params"][0], self.param_groups[0]["lr"])
            return step(self, *values)

        return inner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunningMethod, "turn", watched_turn)
        patch.setattr(Learner, "collect", watched_collect)
        patch.setattr(Learner, "retain", watched_retain)
        patch.setattr(Adam, "step", watched_step(adam))
        patch.setattr(torch.optim.RMSprop, "step", watched_step(rmsprop))
        yield watch


def trained(settings: Settings, directory: Path, task: Any = None, policy: Any = None) -> list[Turn]:
    """The turns of a whole run, as ``rheostat train`` makes it."""
    with watching() as watch:
        Run.create(directory, settings, task=task, policy=policy).train()
    return watch.turns


def turned(settings: Settings, task: Any = None, policy: Any = None, after: Callable[[Turn], None] | None = None) -> list[Turn]:
    """The same turns alone, without files; ``after`` is told of each and may stop the run by an error."""
    with watching() as watch:
        method = build_method(settings, settings.task if task is None else task, policy)
        while method.steps < settings.budget:
            method.turn()
            if after is not None:
                after(watch.turns[-1])
        method.close()
    return watch.turns
