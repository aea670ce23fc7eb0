"""The learner: a method's parts, bound to the models and data of a run. One loop, one state walk, for every method.

    collect() -> retain() -> credit() -> improve()

Data flow one way; nothing flows back except the improved policy. Everything a learner remembers is in ``state_dict``: saving it is
resuming it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rheostat.errors import RheostatError
from rheostat.learner.context import named
from rheostat.learner.running import RunningMethod
from rheostat.parts import Batch, Metrics

ALWAYS = frozenset({"action", "mask", "reward", "terminated", "truncated", "sampler_logp", "source", "version", "group", "valid"})
"""What collectors fill in."""


@dataclass
class Composition:
    """A method's answers to the four questions, before anything is built.

    Attributes:
        collect: who acts.
        retain: what is kept, in order.
        credit: annotations, in order.
        improve: how the models move, in order.
        models: by name, in the order in which they are bound.
        measure: of the context and a number of held-out prompts, how the policy is measured; None samples from it and grades.
        stores: parts that prepare what outlives a turn (data, statistics, the log) before models are bound, in order.
    """

    collect: Any
    retain: list[Any]
    credit: list[Any]
    improve: list[Any]
    models: dict[str, Any]
    measure: Callable[[Any, int], Metrics] | None = None
    stores: list[Any] = field(default_factory=list)

    @property
    def innermost(self) -> Any:
        """The collector inside all wrappers."""
        return list(chain(self.collect))[-1]

    def parts(self) -> dict[str, Any]:
        """Every part by a name that does not depend on positions in lists."""
        return (
            named(self.stores, "stores")
            | named(chain(self.collect), "collect")
            | named(self.retain, "retain")
            | named(self.credit, "credit")
            | named(self.improve, "improve")
        )

    def terms(self) -> list[Any]:
        """Every term of every update."""
        return [each.term for update in self.improve for each in getattr(update, "terms", ())]

    def any(self, name: str) -> bool:
        """Whether some part or term says so of itself (``uses_experts``, ``needs_value_head``, ...)."""
        return any(bool(getattr(part, name, False)) for part in [*self.parts().values(), *self.terms()])

    def update_of(self, model: str = "policy") -> Any:
        """The update of a model.

        Raises:
            RheostatError: no part updates it.
        """
        for part in self.improve:
            if getattr(part, "model", None) == model:
                return part
        raise RheostatError(f"No part of this method updates the model {model!r}.")

    @property
    def gradient_steps(self) -> int:
        """Most gradient steps that an update makes on a batch."""
        return max((getattr(update, "gradient_steps", 1) for update in self.improve), default=1)

    def check(self, who: str) -> None:
        """Refuse parts that cannot work together.

        Args:
            who: the method's name, for the sentences.

        Raises:
            RheostatError: a term or annotation reads a column that no part writes, needs a missing model, or refuses for itself; two
                updates of one model disagree about its optimiser; units that a part would tear apart.
        """
        known = set(ALWAYS) | {name for part in chain(self.collect) for name in getattr(part, "writes", ())}
        for part in self.retain:
            known |= set(getattr(part, "writes", ()))
        for part in self.credit:
            check_reads(who, part, known)
            known |= set(getattr(part, "writes", ()))
        optimisers: dict[str, Any] = {}
        for update in self.improve:
            model = getattr(update, "model", None)
            if model is not None and model not in self.models:
                raise RheostatError(f"{who} updates the model {model!r}, which it does not have: it has {', '.join(self.models)}.")
            check_reads(who, update, known)
            for each in getattr(update, "terms", ()):
                check_reads(who, each.term, known)
            known |= set(getattr(update, "writes", ()))
            mine = tuple(getattr(update, name, None) for name in ("learning_rate", "warmup", "decay", "weight_decay", "max_grad_norm"))
            if model is not None and optimisers.setdefault(model, mine) != mine:
                raise RheostatError(f"{who} has two updates of the model {model!r} with different optimisers: give them the same settings.")
        self._check_units(who)
        for part in [*self.parts().values(), *self.terms()]:
            for name in getattr(part, "models", ()):
                if name not in self.models:
                    raise RheostatError(f"{who} asks for the model {name!r}, which it does not have: it has {', '.join(self.models)}.")
            if hasattr(part, "check"):
                part.check(self)

    def _check_units(self, who: str) -> None:
        maker: Any = None
        for part in [*chain(self.collect), *self.retain]:
            if maker is not None and not getattr(part, "keeps_units", False):
                name = type(part).__name__
                raise RheostatError(f"{who}: {name} cannot keep whole the units that {type(maker).__name__} makes: leave it out.")
            maker = part if getattr(part, "makes_units", False) else maker
        for term in self.terms():
            if maker is None and getattr(term, "needs_units", False):
                name = type(term).__name__
                raise RheostatError(f"{who}: {name} compares rows of one unit, and no part makes units: collect pairs.")


def check_reads(who: str, part: Any, known: set[str]) -> None:
    """Refuse a part that reads what is not known where it stands.

    Raises:
        RheostatError: names the part and the columns.
    """
    missing = [name for name in getattr(part, "reads", ()) if name not in known]
    if missing:
        name = type(getattr(part, "part", part)).__name__  # of what a rhythm is given to
        raise RheostatError(f"{who}: {name} reads {', '.join(missing)}, which no part before it writes: add the annotation that does.")


def chain(collector: Any) -> Iterator[Any]:
    """A collector and what it wraps, from outside in."""
    while collector is not None:
        yield collector
        collector = getattr(collector, "inner", None)


class Learner(RunningMethod):
    """A method of one composition at work.

    Args:
        config: the method's dataclass object, for whoever asks.
        composition: its parts, with the dial applied.
        context: what they share; its networks become models here.
    """

    def __init__(self, config: Any, composition: Composition, context: Any) -> None:
        super().__init__(config, composition, context)
        self.bind_models()
        context.group_size = getattr(composition.collect, "group_size", 1)
        context.measurement = composition.measure
        context.needs_old_scores = composition.gradient_steps > 1 or composition.any("needs_old_logp")
        for part in [*composition.parts().values(), *composition.terms()]:
            if hasattr(part, "bind"):
                part.bind(context)
        context.after_load()

    def collect(self) -> Batch:
        """WHO ACTS?"""
        return self.composition.collect.collect(self.context)

    def retain(self, batch: Batch) -> Batch:
        """WHAT IS KEPT?"""
        for part in self.composition.retain:
            batch = part.retain(self.context, batch)
        return batch

    def credit(self, batch: Batch) -> Batch:
        """WHAT IS IT WORTH?"""
        if self.context.empty(batch):
            return batch
        for part in self.composition.credit:
            batch = part(self.context, batch)
        return batch

    def improve(self, batch: Batch) -> Metrics:
        """HOW DOES THE POLICY MOVE?"""
        return self.move(batch) | self.context.finish_turn(batch)

    def move(self, batch: Batch) -> Metrics:
        """Every update, in order; the turn is not over yet."""
        metrics = dict(batch.metrics)
        with self.context.learning():
            for part in self.composition.improve:
                metrics |= part.improve(self.context, batch)
        return metrics


def first(parts: Sequence[Any], kind: type) -> int | None:
    """Place of the first part of a class; None where there is none."""
    return next((index for index, part in enumerate(parts) if isinstance(part, kind)), None)
