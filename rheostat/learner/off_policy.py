"""What methods with a replay or a data set share: gradient steps whose targets move with the critics, their log, and the way from a data
set to acting.

Units. Actions are ``[-1, 1]`` inside (:mod:`rheostat.policies.control.squashed`); the replay keeps the environment's own, raw observations,
and rewards as they are learned from; what is reported is always the environment's. The budget counts gradient steps while a data set is
learned from and environment steps after that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.control_retainers import NEVER_ACTS, Draw, PerEnvironmentStep, per_turn
from rheostat.collect.control.control_collectors import Nobody
from rheostat.errors import RheostatError
from rheostat.learner.learner import Composition, check_reads
from rheostat.learner.measuring import Calendar, Evaluations, next_multiple
from rheostat.learner.stages import GradientSteps, Stage, Staged
from rheostat.objectives.meter import off_policyness
from rheostat.options import option
from rheostat.parts import Batch, Metrics, NonFinite
from rheostat.policies.control.squashed import Bounds
from rheostat.trajectories import Source, Transitions

UsesData = Literal["no", "optional", "first"]
"""Whether a method reads a data set: never, beside its own data, or before anything else."""

NEVER = -100.0
"""Log-probability that the meter uses for actions that the policy cannot sample."""


@dataclass(frozen=True)
class Batches:
    """Size of the batches of gradient steps."""

    size: int = option(256, short="batch_size", at_least=1)
    """Transitions per gradient step."""


@dataclass(frozen=True)
class Rhythm(Batches):
    """Size of the batches of gradient steps, and their number per environment step."""

    per_environment_step: float = option(1.0, short="update_to_data", at_least=0)
    """Gradient steps per environment step."""

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return {"per_environment_step": NEVER_ACTS} if context.never_acts else {}

    def draw(self, share: float | None = None, after: int = 0) -> Draw:
        """The part that samples the batches of a turn.

        Args:
            share: of the data set in every batch.
            after: environment steps before learning.
        """
        return Draw(self.size, PerEnvironmentStep(self.per_environment_step, after), share)


# --- as the networks read -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AsRead:
    """Converts observations and actions for the networks; refuses spaces that the networks do not support.

    Args:
        discrete: whether actions are choices among a number of them; None takes those and continuous ones.
        beside: numbers stand beside every observation, so that an image is a vector of pixels, which a network of its own reads.
        no_images: why the networks cannot read images; empty where they can.
        clip_actions: whether actions are clipped to the bounds (a policy's own samples may lie outside).
    """

    discrete: bool | None = False
    beside: bool = False
    no_images: str = ""
    clip_actions: bool = True
    writes: ClassVar[tuple[str, ...]] = ("drawn",)

    def prepare(self, context: Any) -> None:
        """Find the bounds of continuous actions, and say how images are read.

        Raises:
            RheostatError: actions or observations that the networks do not support.
        """
        from gymnasium.spaces import Discrete

        who, environments = context.who, context.environments
        if not (isinstance(context.action_space, Discrete) and self.discrete is not False):
            if self.discrete:
                raise RheostatError(
                    f"{who} needs discrete actions, and {environments.name} has {context.action_space}: use ppo, or sac for a Box of "
                    "floats."
                )
            context.bounds = Bounds.of(context.action_space, who)
        if self.no_images and (context.images or getattr(context.observation_space, "pictures", ())):
            raise RheostatError(f"{who} cannot read the images of {environments.name}: {self.no_images}.")
        context.pixels_as_numbers = self.beside and context.images

    def __call__(self, context: Any, batch: Batch) -> Batch:
        kept, bounds = batch.rows, context.bounds
        rows = kept.clone(recurse=False)
        rows.observation, rows.next_observation = context.see(kept.observation), context.see(kept.next_observation)
        if not self.clip_actions:
            rows.action = (kept.action.flatten(2) - bounds.centre) / bounds.half
        elif bounds is not None:
            batch.columns["drawn"] = bounds.drawn(kept.action)  # what has a density, for the meter
            rows.action = bounds.to_unit(kept.action)
            if kept.next_action is not None:
                rows.next_action = bounds.to_unit(kept.next_action)
        return batch.with_rows(rows)


# --- gradient steps -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PerStep:
    """A sequence of updates in every gradient step. Each batch is annotated anew, because targets change with the critics; then the updates
    run in order. An update may leave columns and facts for those after it.

    Args:
        size: rows of a gradient step.
        credit: annotations.
        updates: each with ``step(context, batch)``, which returns scalars for the log.
    """

    size: int
    credit: Sequence[Any]
    updates: Sequence[Any]

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Make all gradient steps of the turn; the log accumulates their metrics."""
        rows = batch.rows
        for start in range(0, len(rows), self.size):
            self.step(context, Batch(rows[start : start + self.size]))
        return {}

    def step(self, context: Any, batch: Batch) -> dict[str, Any]:
        """One gradient step of every model; returns scalars.

        Raises:
            NonFinite: a loss is not finite; carries the rows.
        """
        rows = batch.rows
        found = context.compute.of(self, self.moved)(context, batch)
        if context.log is not None:
            context.log.add(context, found, rows)
        context.finish_gradient_step()
        return found

    def moved(self, context: Any, batch: Batch) -> dict[str, Any]:
        """Annotate the batch and run the updates in order; returns scalars."""
        for annotate in self.credit:
            batch = annotate(context, batch)
        found: dict[str, Any] = {}
        for update in self.updates:
            found |= update.step(context, batch)
        return found

    def bind(self, context: Any) -> None:
        """Take a compiled gradient step where it is asked for and knows every option in use."""

        def compiled() -> Any:
            from rheostat.learner.compiled_replay import compiled_step  # needs the extra fast

            return compiled_step(context, self.size, list(self.credit), list(self.updates))

        context.compute.take(self, compiled)

    def check(self, composition: Any) -> None:
        """Run the checks of the inner parts; refuse a part that reads a column that no part before it writes."""
        known: set[str] = set()
        for part in self.inner():
            check_reads("A gradient step", part, known)
            known |= set(getattr(part, "writes", ()))
            for name in getattr(part, "models", ()):
                if name not in composition.models:
                    raise RheostatError(f"{type(part).__name__} asks for the model {name!r}, which is not there.")
            if hasattr(part, "check"):
                part.check(composition)

    def inner(self) -> list[Any]:
        """The inner parts, delayed ones included."""
        found: list[Any] = []
        for part in [*self.credit, *self.updates]:
            found += [part, *getattr(part, "updates", ())]
        return found

    def describe(self) -> dict[str, int | str]:
        """Derived numbers."""
        return {name: value for part in self.inner() if hasattr(part, "describe") for name, value in part.describe().items()}


# --- the log ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logging(Evaluations):
    """How often a row of metrics is written and the policy is evaluated."""

    every: int = option(1_000, short="log_every", at_least=1)
    """Steps between rows of metrics."""
    metered: Callable[[Any], bool] | None = None
    """From the context: whether the meter measures the batch of the turn; None: always."""

    def prepare(self, context: Any) -> None:
        """Put a :class:`Log` into the context and its stores."""
        context.log = context.stores["log"] = Log(self)
        context.calendar = context.log.calendar


class Log:
    """Means of the gradient steps since the last row, and when the next row is due.

    Args:
        options: the intervals.

    Attributes:
        always: whether every turn has a row.
    """

    def __init__(self, options: Logging) -> None:
        self.options = options
        self.always = False
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.next_row = 0
        self.calendar = Calendar(options)

    def add(self, context: Any, found: dict[str, Any], rows: Transitions) -> None:
        """Add a gradient step's numbers.

        Raises:
            NonFinite: a loss is not finite; carries the rows.
        """
        sums, counts = self.sums, self.counts
        for name, value in found.items():
            number = value.item() if isinstance(value, Tensor) else value
            if "loss" in name and not math.isfinite(number):
                raise NonFinite(
                    f"{name} became {number} in gradient step {context.updates + 1}: lower the learning rate or look at the rewards", rows
                )
            sums[name] = sums.get(name, 0.0) + number
            counts[name] = counts.get(name, 0) + 1

    def row(self, context: Any, batch: Batch) -> Metrics:
        """Write a row of metrics and evaluate the policy, each where it is due. An evaluation shifts no row and resets no mean."""
        options, steps = self.options, context.steps
        begins = context.offline_budget > 0 and steps == context.offline_budget  # the last gradient step before anyone acts
        metrics: Metrics = {}
        if self.always or begins or steps >= min(self.next_row, context.budget):
            self.next_row = next_multiple(steps, options.every)
            metrics = self.report(context, batch)
        return metrics | context.measure_due(context.episodes_due(begins=begins))

    def report(self, context: Any, batch: Batch) -> Metrics:
        """Means since the last row, the meter on the last batch, and the episodes that ended."""
        metrics: Metrics = {name: total / self.counts[name] for name, total in self.sums.items()}
        metrics["gradient_steps"] = max(self.counts.values(), default=0)
        self.sums, self.counts = {}, {}
        metered = self.options.metered is None or self.options.metered(context)
        if isinstance(batch.rows, Transitions) and len(batch.rows) and metered:
            last = slice(-batch.facts["size"], None)
            drawn = batch.columns.get("drawn")
            metrics |= meter(context, batch.rows[last], None if drawn is None else drawn[last])
        metrics |= context.collector.metrics() if context.acting else {}
        metrics["replay"] = sum(len(context.stores[name]) for name in ("replay", "data") if name in context.stores)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts since the last row, and the steps at which the next row and the next measurement are due."""
        return {"sums": dict(self.sums), "counts": dict(self.counts), "next": [self.next_row, self.calendar.next]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
        self.next_row, self.calendar.next = state["next"]


def meter(context: Any, rows: Transitions, drawn: Tensor | None = None) -> Metrics:
    """Measure how far off-policy the rows are, by source; without ratios where the policy has no density.

    Args:
        context: of the learner.
        rows: as the networks read them.
        drawn: ``[n, D]`` unit actions as they were drawn, which the environment may have clipped; None: as in the rows.
    """
    with torch.no_grad():
        policy = context.models[context.deployed].exploring(rows.observation)
        learner = policy.log_prob(rows.action if drawn is None else drawn).clamp_min(NEVER)
        sampler = rows.sampler_logp if context.bounds is None else rows.sampler_logp + context.bounds.log_volume
        sampler = torch.where(learner.isnan(), learner, sampler)
    age = torch.where(rows.source == int(Source.OFFLINE), -1, context.updates - rows.version)
    return off_policyness(learner, sampler, age=age, source=rows.source)


# --- compositions -------------------------------------------------------------------------------------------------------------------------


def from_replay(
    collect: Any, replay: Any, draw: Draw, step: PerStep, models: dict[str, Any], *, stores: Sequence[Any], read: AsRead, log: Logging
) -> Composition:
    """Environment steps that are stored in a replay, and gradient steps on batches sampled from it.

    Args:
        collect: who acts.
        replay: where steps are kept.
        draw: the batches that are due.
        step: a gradient step.
        models: by name.
        stores: parts that prepare the data set, rewards and states, in order.
        read: how rows are read.
        log: when there are rows of metrics.
    """
    return Composition(collect, [replay, draw], [read], [step], models, stores=[read, *stores, replay, log])


def data_first(
    collect: Any,
    replay: Any,
    draw: Draw,
    step: PerStep,
    models: dict[str, Any],
    *,
    stores: Sequence[Any],
    read: AsRead,
    log: Logging,
    online: PerStep | None = None,
) -> Staged:
    """Gradient steps on a data set first without, then with data collection.

    Args:
        collect, replay, draw, step, models, stores, read, log: as in :func:`from_replay`.
        online: a gradient step once the policy acts, where it is another one.
    """
    offline = Composition(Nobody(), [replace(draw, due=per_turn)], [read], [step], models)
    acting = Composition(collect, [replay, draw], [read], [online or step], models)
    stages = [Stage("offline", offline, GradientSteps(lambda context: context.total_steps)), Stage("online", acting)]
    return Staged(stages, models, stores=[read, *stores, replay, log])
