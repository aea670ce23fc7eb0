"""HOW DOES THE POLICY MOVE? Of a fleet: clipped steps on samples, a critic where there is one, and a reference to keep a distance to.

The reference is the policy that has been best so far, in episodes of its own every few turns. The distance to it weighs nothing until
such an evaluation has failed to improve. From then on it has a weight, and a step whose distance is beyond the gate is left out, while the
weight doubles for the rest of the turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from rheostat.learner.control_models import TargetNetwork, TrainableNetwork
from rheostat.objectives.clipping import Clip
from rheostat.objectives.dispatch import Direction, dispatch_loss
from rheostat.options import option
from rheostat.parts import Batch, Metrics, NonFinite
from rheostat.policies.control.dispatch_policy import Dispatcher, VehicleValue, shares
from rheostat.streams import derive_seed
from rheostat.tasks.fleet.city import ORDER_NUMBERS


@dataclass(frozen=True)
class FleetNetwork:
    """The network that scores pairs of a vehicle and an order."""

    hidden: tuple[int, ...] = option((128, 128), at_least=1)
    """Hidden layers; also of the critic, where there is one."""

    def policy(self, context: Any) -> Dispatcher:
        """The untrained policy."""
        return Dispatcher(context.city.vehicle_size, ORDER_NUMBERS, self.hidden, derive_seed(context.streams.seed, "network"))

    def value(self, context: Any) -> VehicleValue:
        """The untrained critic."""
        return VehicleValue(context.city.vehicle_size, self.hidden, derive_seed(context.streams.seed, "value network"))


class Reference(TargetNetwork):
    """The policy that has been best so far; it begins as the first one."""

    def __init__(self) -> None:
        super().__init__("policy", 1.0)

    def after_update(self, context: Any) -> None:
        """An update alone changes nothing; see :class:`Judgement`."""


class Standing:
    """How evaluations have gone.

    Attributes:
        best: discounted reward of the best one; None before the first.
        failed: evaluations since then.
        held: whether one has ever failed, so that the distance to the reference counts.
    """

    def __init__(self) -> None:
        self.best: float | None = None
        self.failed = 0
        self.held = False

    def judge(self, reward: float) -> bool:
        """Enter an evaluation; returns whether it is the best."""
        if self.best is None or reward > self.best:
            self.best, self.failed = reward, 0
            return True
        self.failed += 1
        self.held = True
        return False

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"best": self.best, "failed": self.failed, "held": self.held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.best, self.failed, self.held = state["best"], state["failed"], state["held"]


@dataclass(frozen=True)
class DispatchUpdate:
    """Gradient steps on samples of a turn."""

    reads: ClassVar[tuple[str, ...]] = ("advantage", "table")

    steps: int = option(10, short="updates_per_turn", at_least=1)
    """Gradient steps per turn."""
    rows: int = option(256, short="batch_size", at_least=1)
    """Rows of a gradient step, drawn with replacement."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size, of the critic too."""
    decay: float = option(1.0, short="learning_rate_decay", above=0, at_most=1)
    """Factor of the step size per turn."""
    max_grad_norm: float = option(1.0, above=0)
    """Largest norm of a gradient."""
    clip: Clip = Clip(0.2, 0.28)
    entropy: float = option(0.05, short="entropy_coefficient", at_least=0)
    """Weight of the entropy of the shares."""
    beta: float = option(0.5, short="kl_coefficient", at_least=0)
    """Weight of the distance to the reference, once an evaluation has failed to improve; 0 keeps no distance."""
    gate: float = option(0.01, short="kl_gate", at_least=0)
    """From then on, a step whose distance is above this is left out, and the weight doubles for the rest of the turn."""
    direction: Direction = option("from-policy", short="kl_direction")
    """Of the distance: the policy's mean of log(p / q), the reference's of log(q / p), or both halved."""
    model: str = "policy"

    @property
    def gradient_steps(self) -> int:
        """On a batch."""
        return self.steps

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.beta else dict.fromkeys(("gate", "direction"), "kl_coefficient is 0, so leave it alone")

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Make the gradient steps.

        Raises:
            NonFinite: a loss or gradient is not finite; carries the rows.
        """
        model, rate = context.models[self.model], self.learning_rate * self.decay ** (context.turns - 1)
        model.learning_rate = rate
        rows, beta = usable(batch), self.beta * context.stores["standing"].held
        told: list[dict[str, float]] = []
        skipped = 0
        for _ in range(self.steps if len(rows) else 0):
            found, beta, moved = self.step(context, batch[drawn(context, rows, self.rows)], beta)
            skipped += not moved
            told.append(found)
        context.finish_update(self.model)
        means = {name: float(np.mean([each[name] for each in told])) for name in (told[0] if told else {})}
        return batch.metrics | means | {"learning_rate": rate, "gradient_steps": len(told) - skipped, "steps_left_out": skipped}

    def step(self, context: Any, batch: Batch, beta: float) -> tuple[dict[str, float], float, bool]:
        """One step on some rows.

        Returns:
            Scalars by name, the weight of the distance from now on, and whether the policy moved.
        """
        model, rows = context.models[self.model], batch.rows
        found = self.loss(context, batch, beta)
        told = {"policy_loss": found.policy, "entropy": found.entropy, "kl_reference": found.distance, "meter/clip_fraction": found.clipped}
        scalars = {name: float(value.detach()) for name, value in told.items()}
        if beta and scalars["kl_reference"] > self.gate:
            return scalars | {"meter/gradient_norm": 0.0}, 2 * beta, False
        model.parameters.gradient.zero_()
        found.loss.backward()
        norm = model.parameters.clip_gradient(self.max_grad_norm)
        if not np.isfinite([norm, float(found.loss.detach())]).all():
            raise NonFinite(f"The loss or the gradient became non-finite in update {context.updates_of(self.model) + 1}", rows)
        model.optimizer.step()
        return scalars | {"meter/gradient_norm": norm}, beta, True

    def loss(self, context: Any, batch: Batch, beta: float) -> Any:
        """The loss of some rows (:class:`~rheostat.objectives.dispatch.DispatchLoss`)."""
        rows, place = batch.rows, batch.columns["table"]
        vehicles, orders, is_open = rows.observation.unsqueeze(1), batch.facts["orders"][place], batch.facts["open"][place]
        width = int(is_open.sum(1).max())  # orders stand first: what is padding in every row is left out
        orders, is_open = orders[:, :width], is_open[:, :width]
        share = shares(context.models[self.model].network(vehicles, orders).squeeze(1), is_open)
        with torch.no_grad():
            reference = shares(context.models["reference"].network(vehicles, orders).squeeze(1), is_open)
        return dispatch_loss(
            share,
            reference,
            is_open,
            rows.action,
            rows.sampler_logp,
            rows.advantage,
            clip=self.clip,
            beta=beta,
            entropy_coefficient=self.entropy,
            direction=self.direction,
        )


@dataclass(frozen=True)
class ValueFit:
    """As many gradient steps of the critic on samples of the same size."""

    reads: ClassVar[tuple[str, ...]] = ("value_target",)

    of: DispatchUpdate
    model: str = "value"

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Make the gradient steps.

        Raises:
            NonFinite: a loss is not finite; carries the rows.
        """
        model: TrainableNetwork = context.models[self.model]
        model.learning_rate = self.of.learning_rate * self.of.decay ** (context.turns - 1)
        rows, losses = usable(batch), []
        for _ in range(self.of.steps if len(rows) else 0):
            part = batch.rows[drawn(context, rows, self.of.rows)]
            loss = (model.network(part.observation) - part.value_target).square().mean() / 2
            if not bool(loss.isfinite()):
                raise NonFinite(f"The critic's loss became non-finite in update {context.updates_of('policy')}", part)
            model.step(loss, max_grad_norm=self.of.max_grad_norm)
            losses.append(float(loss.detach()))
        context.finish_update(self.model)
        return {"value_loss": float(np.mean(losses))} if losses else {}


def usable(batch: Batch) -> torch.Tensor:
    """Indices of the rows to learn from."""
    used = batch.columns.get("used")
    return torch.arange(len(batch)) if used is None else used.nonzero().flatten()


def drawn(context: Any, rows: torch.Tensor, count: int) -> torch.Tensor:
    """So many of some indices, with replacement."""
    return rows[torch.randint(len(rows), (count,), generator=context.streams["minibatches"])]


@dataclass(frozen=True)
class Judgement:
    """Evaluates the policy now and then, and makes the best one the reference."""

    every: int = option(10, short="judge_every", at_least=1)
    """Turns between evaluations that decide about the reference."""
    cities: int = option(8, short="judge_cities", at_least=1)
    """Cities of such an evaluation; their demand is that of no other one."""
    patience: int = option(10, at_least=0)
    """The run ends after so many evaluations without an improvement; 0 never ends it early."""
    least_turns: int = option(1000, at_least=0)
    """Turns before which it does not end early."""
    gamma: float = 0.99

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.patience else {"least_turns": "patience is 0, so leave it alone"}

    def prepare(self, context: Any) -> None:
        """Store how evaluations have gone in the context."""
        context.stores["standing"] = Standing()

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Evaluate where it is due."""
        if context.turns % self.every:
            return {}
        standing = context.stores["standing"]
        reward = discounted_reward(context.measure("judgement", self.cities)[1], self.gamma) / self.cities
        if standing.judge(reward):
            context.models["reference"].update_target(1.0)
        if self.patience and standing.failed >= self.patience and context.turns >= self.least_turns:
            context.ended = f"{standing.failed} evaluations in a row have not improved on the best one (patience)"
        return {"judged_reward": reward, "best_judged_reward": standing.best, "reference_counts": float(standing.held)}


def discounted_reward(minutes: Any, gamma: float) -> float:
    """``sum_t gamma^t r_t`` of all vehicles of all cities."""
    return float(sum(gamma**each.minute * each.reward.sum() for each in minutes))
