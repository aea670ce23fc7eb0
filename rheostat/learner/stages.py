"""Stages: a sequence of learners that share models and stores.

    Staged([Stage("offline", ..., until=GradientSteps(...)), Stage("online", ...)], models)

Models pass from stage to stage by name. ``start`` runs once when a stage begins and ``finish`` once when it is over (freeze, choose,
refresh). Which stage is under way is part of the state, so that a run that is stopped in any of them continues exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rheostat.errors import RheostatError
from rheostat.learner.context import named
from rheostat.learner.learner import Composition, Learner
from rheostat.learner.running import RunningMethod
from rheostat.parts import Batch, Metrics

Hook = Callable[[Any], None]
"""A function of the learner's context."""


def nothing(context: Any) -> None:
    """No hook."""


@dataclass(frozen=True)
class GradientSteps:
    """A stage ends after a number of gradient steps, or earlier by a test. All its planned steps count as spent in either case."""

    count: Callable[[Any], int]
    """From the context: number of gradient steps. 0 skips the stage."""
    or_when: Callable[[Any], bool] | None = None
    """From the context, after every turn: whether the stage ends now (early stopping)."""

    def over(self, context: Any) -> bool:
        """Whether the stage is over."""
        return context.gradient_steps >= self.count(context) or (self.or_when is not None and self.or_when(context))


@dataclass
class Stage:
    """Parts until a test holds.

    Attributes:
        name: of the stage.
        composition: its answers to the four questions.
        until: when it is over; None lasts until the budget is spent, which only the last stage can.
        start: once, before its first turn.
        finish: once, after its last turn.
        log_always: every turn has a row of the log.
    """

    name: str
    composition: Composition
    until: GradientSteps | None = None
    start: Hook = nothing
    finish: Hook = nothing
    log_always: bool = False


@dataclass
class Staged:
    """The composition of a method with stages, before anything is built.

    Attributes:
        stages: in order.
        models: of all stages, by name, in the order in which they are bound.
        deployed: name of the model that is evaluated.
        report: whether the log says which stage is under way.
    """

    stages: list[Stage]
    models: dict[str, Any]
    deployed: str = "policy"
    report: bool = False
    stores: list[Any] = field(default_factory=list)
    """Parts that prepare what all stages share, in order."""

    @property
    def innermost(self) -> Any:
        """The collector of the last stage."""
        return self.stages[-1].composition.innermost

    def parts(self) -> dict[str, Any]:
        """Every part by its stage and its own name; a shared part appears once, in the first stage that has it."""
        found: dict[str, Any] = named(self.stores, "stores")
        seen = {id(part) for part in found.values()}
        for stage in self.stages:
            for name, part in stage.composition.parts().items():
                if id(part) not in seen:
                    seen.add(id(part))
                    found[f"{stage.name}.{name}"] = part
        return found

    def any(self, name: str) -> bool:
        """Whether any part has this attribute set."""
        return any(bool(getattr(part, name, False)) for part in self.parts().values())

    def check(self, who: str) -> None:
        """Check the order of the stages and run the checks of the parts.

        Raises:
            RheostatError: a stage that never ends before another one, two stages of one name, or parts that cannot work together.
        """
        names = [stage.name for stage in self.stages]
        for stage in self.stages[:-1]:
            if stage.until is None:
                raise RheostatError(f"{who}: the stage {stage.name!r} never ends, so {names[-1]!r} is never reached: say until when.")
        if len(set(names)) < len(names):
            raise RheostatError(f"{who} has two stages of one name among {', '.join(names)}: give each its own.")
        for stage in self.stages:
            stage.composition.models = self.models
            stage.composition.check(who)


class Stages(RunningMethod):
    """The learner of a method with stages, with the interface of a :class:`~rheostat.learner.learner.Learner`.

    Args:
        config: the method's dataclass object, for whoever asks.
        staged: its stages.
        context: what they share.
    """

    def __init__(self, config: Any, staged: Staged, context: Any) -> None:
        super().__init__(config, staged, context)
        context.deployed = staged.deployed
        context.stages = [None if stage.until is None else stage.until.count(context) for stage in staged.stages]
        self.bind_models()
        self.learners = [Learner(config, stage.composition, context) for stage in staged.stages]
        self._attend()

    # --- the present stage ------------------------------------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        """The present stage."""
        return self.composition.stages[self.context.stage]

    @property
    def learner(self) -> Learner:
        """Its learner."""
        return self.learners[self.context.stage]

    def _begin(self) -> None:
        """Prepare a stage before its first turn."""
        while self.context.length == 0:
            self._finish()
        if self.context.started < self.context.stage:
            self.context.started = self.context.stage
            self.stage.start(self.context)

    def _finish(self) -> None:
        """Finish the present stage, and those after it that have no steps."""
        context = self.context
        while True:
            context.spent += context.length
            self.stage.finish(context)
            context.stage, context.gradient_steps = context.stage + 1, 0
            if context.length != 0:
                break
        self._attend()

    def _attend(self) -> None:
        """Metrics that describe the present stage."""
        if self.context.log is not None:
            self.context.log.always = self.stage.log_always

    # --- the four questions -----------------------------------------------------------------------------------------------------------

    def collect(self) -> Batch:
        """WHO ACTS?"""
        self._begin()
        return self.learner.collect()

    def retain(self, batch: Batch) -> Batch:
        """WHAT IS KEPT?"""
        return self.learner.retain(batch)

    def credit(self, batch: Batch) -> Batch:
        """WHAT IS IT WORTH?"""
        return self.learner.credit(batch)

    def improve(self, batch: Batch) -> Metrics:
        """HOW DOES THE POLICY MOVE? Make the gradient steps of the present stage, and start the next stage where it ends."""
        report = {"stage": self.context.stage} if self.composition.report else {}
        metrics = self.learner.move(batch)
        until = self.stage.until
        if until is not None and until.over(self.context):
            self._finish()
        row = self.context.finish_turn(batch)
        return metrics | report | row if row else metrics

    @property
    def arithmetic(self) -> dict[str, int | str]:
        """Numbers derived from the configuration and the budget, for printing."""
        if not self.composition.report:
            return super().arithmetic
        return super().arithmetic | {
            f"steps of the {stage.name}": length
            for stage, length in zip(self.composition.stages, self.context.stages, strict=True)
            if length is not None
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken, in the stage of that time."""
        super().load_state_dict(state)
        self._attend()
