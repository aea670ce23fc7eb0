"""Parts of gradient steps of actors and critics: their networks, and how critics, policies and temperatures move.

What critics regress on is in :mod:`rheostat.credit.td_annotations`. An update has ``step(context, batch)`` and returns scalars for the log.
Models have the same names everywhere: ``policy``, ``critics``, ``target critics``, ``temperature``,
``value``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rheostat.credit.td_annotations import bounded_draw, smallest_value, soft_draw
from rheostat.learner.control_models import OWN_NETWORK, Build, TargetNetwork, TrainableNetwork
from rheostat.learner.own_networks import own_critics
from rheostat.objectives.actor import (
    TemperatureForm,
    behaviour_regularised_loss,
    deterministic_actor_loss,
    soft_actor_loss,
    temperature_loss,
)
from rheostat.objectives.expectile import expectile_loss
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.temporal_difference import (
    OverCritics,
    absolute_td_error,
    critic_loss,
    min_over_critics,
)
from rheostat.options import option, value_or
from rheostat.parts import Batch, NonFinite
from rheostat.policies.control.actors import DeterministicActor, SquashedActor, TanhMeanActor, Temperature
from rheostat.policies.control.critics import EnsembleQ, StateValue
from rheostat.policies.control.discrete_q import DiscreteActor, DiscreteEnsembleQ
from rheostat.policies.control.views import Front
from rheostat.trajectories import Transitions

Found = dict[str, Any]
"""What the log says of a gradient step, by name: scalar tensors (or floats) without a gradient."""
CHOICE_ENTROPY = 0.98
"""Share of the largest entropy, that of uniform choices, that is held by default (Christodoulou 2019)."""
QValue = Callable[[Any, Batch, Tensor], Tensor]
"""From context, batch and actions of the policy (of choices: their probabilities) to their value ``[B]``; the gradient flows through the
action alone."""


# --- networks -----------------------------------------------------------------------------------------------------------------------------


def reading(context: Any, extra: int = 0) -> tuple[int, dict[str, Any]]:
    """How many features a network reads, of which ``extra`` stand beside the observation, and what makes them and draws its weights."""
    draw = context.streams["networks"]
    front = Front.of(context.observation_space, draw)
    return (context.observation_space.shape[0] if front is None else front.width) + extra, {"front": front, "generator": draw}


def squashed_actor(hidden: tuple[int, ...], extra: int = 0) -> Build:
    """Tanh of a Gaussian, or a softmax over choices; ``extra`` features beside an observation."""

    def build(context: Any) -> nn.Module:
        seen, others = reading(context, extra)
        if not context.continuous:
            return DiscreteActor(seen, int(context.action_space.n), hidden=hidden, **others)
        return SquashedActor(seen, context.action_size, hidden=hidden, **others)

    return build


def tanh_mean_actor(hidden: tuple[int, ...], log_std: tuple[float, float], extra: int = 0) -> Build:
    """A Gaussian around a squashed mean, or a softmax over choices; ``extra`` features beside an observation."""

    def build(context: Any) -> nn.Module:
        seen, others = reading(context, extra)
        if not context.continuous:
            return DiscreteActor(seen, int(context.action_space.n), hidden=hidden, **others)
        return TanhMeanActor(seen, context.action_size, hidden=hidden, log_std=log_std, **others)

    return build


def deterministic_actor(hidden: tuple[int, ...]) -> Build:
    """One action per observation."""

    def build(context: Any) -> nn.Module:
        seen, others = reading(context)
        return DeterministicActor(seen, context.action_size, hidden=hidden, **others)

    return build


def ensemble_q(hidden: tuple[int, ...], networks: int = 2, normalise: bool = False) -> Build:
    """Critics of observations and actions, or of observations and every choice."""

    def build(context: Any) -> nn.Module:
        seen, others = reading(context)
        shape: dict[str, Any] = {"networks": networks, "hidden": hidden, "normalise": normalise}
        if not context.continuous:
            return DiscreteEnsembleQ(seen, int(context.action_space.n), **shape, **others)
        return EnsembleQ(seen, context.action_size, **shape, **others)

    return build


def state_value(hidden: tuple[int, ...]) -> Build:
    """A critic of observations."""

    def build(context: Any) -> nn.Module:
        seen, others = reading(context)
        return StateValue(seen, hidden=hidden, **others)

    return build


@dataclass(frozen=True)
class Critics:
    """The ensemble of critics and its loss."""

    number: int = option(2, short="critics", at_least=1)
    """Critics in the ensemble (K)."""
    normalisation: bool = option(False, short="critic_normalisation")
    """Layer normalisation in the critics (RLPD)."""
    learning_rate: float | None = option(None, short="critic_learning_rate", at_least=0)
    """Adam step size of the critics; None takes learning_rate, and 0 freezes them."""
    over: OverCritics = option("sum", short="over_critics")
    """The critics' loss is the sum over critics, or their mean (RLPD)."""
    scale: float = option(1.0, short="critic_scale")
    """Factor of the critics' loss (Stable-Baselines3: 0.5)."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"over": "the sum over one critic is its mean, so leave it alone, or raise critics"} if self.number == 1 else {}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return dict.fromkeys(("number", "normalisation"), OWN_NETWORK) if "critics" in context.networks else {}

    def models(self, hidden: tuple[int, ...], learning_rate: float, tau: float) -> dict[str, Any]:
        """Critics and target critics; ``learning_rate`` is that of the policy."""
        critics = TrainableNetwork(
            ensemble_q(hidden, self.number, self.normalisation), value_or(self.learning_rate, learning_rate), own=own_critics
        )
        return {"critics": critics, "target critics": TargetNetwork("critics", tau)}


@dataclass(frozen=True)
class Entropy:
    """The temperature of a soft policy."""

    fixed: float | None = option(None, short="temperature", above=0)
    """Fixed alpha; None learns it."""
    initial: float = option(1.0, short="initial_temperature", above=0)
    """Where a learned alpha starts."""
    target: float | None = option(None, short="target_entropy")
    """Entropy that a learned alpha holds, nats; None is minus the number of action dimensions (rlpd: half of it), or of discrete actions
    98 percent of the largest (Christodoulou 2019)."""
    form: TemperatureForm = option("exp", short="temperature_form")
    """The temperature's loss has the factor alpha (exp) or log alpha (log)."""
    share: float = 1.0
    """Of the number of action dimensions."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "a fixed temperature learns nothing, so leave it alone, or leave temperature out"
        return {} if self.fixed is None else dict.fromkeys(("initial", "target", "form"), why)

    def model(self, learning_rate: float) -> TrainableNetwork:
        """The temperature alpha, as its logarithm (one float32); ``learning_rate`` is Adam's step size where it is learned."""
        start = self.initial if self.fixed is None else self.fixed
        return TrainableNetwork(lambda context: Temperature(start), learning_rate)

    @property
    def steps(self) -> list[Any]:
        """The updates that move it: none where it is fixed, else one that reads the column ``log_prob`` ``[B]``."""
        return [] if self.fixed is not None else [TemperatureStep(self.target, self.form, self.share)]


# --- how critics move ---------------------------------------------------------------------------------------------------------------------


def rank(context: Any, rows: Transitions, q: Tensor, target: Tensor) -> None:
    """Tell a prioritised replay how wrong the critics were about rows.

    Args:
        context: of the learner.
        rows: of the gradient step.
        q: ``[K, B]``.
        target: ``[B]``.

    Raises:
        NonFinite: an error is not finite.
    """
    if not context.ranked:
        return
    error = absolute_td_error(q, target)
    if not bool(error.isfinite().all()):
        raise NonFinite(f"The critics' error is not finite in gradient step {context.updates + 1}: lower the learning rate", rows)
    context.stores["replay"].set_priorities(rows.index, error)


@dataclass(frozen=True)
class CriticStep:
    """All critics towards the column ``target``."""

    over: OverCritics = "sum"
    scale: float = 1.0
    models: ClassVar[tuple[str, ...]] = ("critics",)
    reads: ClassVar[tuple[str, ...]] = ("target",)

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of all critics on rows ``[B]``: Q ``[K, B]`` towards the column ``target`` ``[B]``, in units of value.

        Returns:
            ``critic_loss``, and the means ``q`` (from before the step) and ``target``.

        Raises:
            NonFinite: an error is not finite where the replay ranks rows by it.
        """
        rows, critics, target = batch.rows, context.models["critics"], batch.columns["target"]
        q = critics.network(rows.observation, rows.action)
        loss = critic_loss(q, target, critics=self.over, scale=self.scale, weight=rows.weight)
        critics.step(loss)
        rank(context, rows, q, target)
        context.finish_update("critics")
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target": target.mean()}


@dataclass(frozen=True)
class ExpectileStep:
    """V towards an expectile of the column ``best``."""

    expectile: float = 0.7
    models: ClassVar[tuple[str, ...]] = ("value",)
    reads: ClassVar[tuple[str, ...]] = ("best",)

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of V ``[B]`` towards the column ``best`` ``[B]``; returns ``value_loss`` and the mean ``value`` from before it."""
        model = context.models["value"]
        value = model.network(batch.rows.observation)
        loss = expectile_loss(value, batch.columns["best"], self.expectile, weight=batch.rows.weight)
        model.step(loss)
        context.finish_update("value")
        return {"value_loss": loss.detach(), "value": value.detach().mean()}


# --- how policies move --------------------------------------------------------------------------------------------------------------------


def smallest_q(context: Any, batch: Batch, action: Tensor) -> Tensor:
    """The smallest critic, ``[B]``."""
    return smallest_value(context.models["critics"].network, batch.rows.observation, action, frozen=True)


def mean_q(context: Any, batch: Batch, action: Tensor) -> Tensor:
    """The mean over all critics, ``[B]`` (RLPD)."""
    found: Tensor = context.models["critics"].network(batch.rows.observation, action, frozen=True).mean(0)
    return found


def first_q(context: Any, batch: Batch, action: Tensor) -> Tensor:
    """The first critic, ``[B]`` (TD3)."""
    found: Tensor = context.models["critics"].network(batch.rows.observation, action, frozen=True)[0]
    return found


@dataclass(frozen=True)
class SoftActorStep:
    """The policy up the critics with its entropy; leaves the column ``log_prob`` for the temperature."""

    q_value: QValue = smallest_q
    models: ClassVar[tuple[str, ...]] = ("policy", "critics")
    writes: ClassVar[tuple[str, ...]] = ("log_prob",)

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return ("alpha", *getattr(self.q_value, "reads", ()))

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of the policy at the observations of the rows ``[B, ...]``; reads the fact ``alpha``, writes ``log_prob`` ``[B]``.

        Returns:
            ``policy_loss``, the sampled ``entropy`` in nats of unit actions, and the ``temperature`` alpha.
        """
        alpha = batch.facts["alpha"]
        action, log_prob = soft_draw(context, batch.rows.observation)
        loss = soft_actor_loss(self.q_value(context, batch, action), log_prob, alpha)
        context.models["policy"].step(loss)
        context.finish_update("policy")
        batch.columns["log_prob"] = log_prob
        return {"policy_loss": loss.detach(), "entropy": -log_prob.detach().mean(), "temperature": alpha}


@dataclass(frozen=True)
class TemperatureStep:
    """A learned temperature, from the column ``log_prob`` of the policy's own actions."""

    target: float | None = None
    form: TemperatureForm = "exp"
    share: float = 1.0
    models: ClassVar[tuple[str, ...]] = ("temperature",)
    reads: ClassVar[tuple[str, ...]] = ("log_prob",)

    def target_entropy(self, context: Any) -> float:
        """What is held, nats."""
        if self.target is not None:
            return self.target
        return -float(context.action_size) * self.share if context.continuous else CHOICE_ENTROPY * math.log(context.action_space.n)

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of log alpha, from the column ``log_prob`` ``[B]`` (nats, a constant here); it has nothing to say to the log."""
        model = context.models["temperature"]
        model.step(temperature_loss(model.network.log, batch.columns["log_prob"], self.target_entropy(context), form=self.form))
        context.finish_update("temperature")
        return {}


@dataclass(frozen=True)
class DeterministicActorStep:
    """The policy up the first critic; with ``alpha``, held near the data's actions (TD3+BC)."""

    alpha: float | None = None
    q_value: QValue = first_q
    models: ClassVar[tuple[str, ...]] = ("policy", "critics")

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of the policy's unit actions ``[B, D]``; returns ``policy_loss`` and, held near the data, the mean squared
        ``distance_to_data`` in unit actions."""
        rows, model = batch.rows, context.models["policy"]
        action = model.network(rows.observation)
        q = self.q_value(context, batch, action)
        found: Found = {}
        if self.alpha is None:
            loss = deterministic_actor_loss(q)
        else:
            loss = behaviour_regularised_loss(q, action, rows.action, alpha=self.alpha)
            found["distance_to_data"] = (action.detach() - rows.action).square().mean()
        model.step(loss)
        context.finish_update("policy")
        return {"policy_loss": loss.detach()} | found


Weight = Callable[[Any, Batch, Tensor], Tensor]
"""From context, batch and advantages ``[B]`` to weights ``[B]``."""


def advantage_column(context: Any, batch: Batch, policy: Any) -> Tensor:
    """As an annotation left it, ``[B]``."""
    return batch.columns["advantage"]


@torch.no_grad()
def advantage_over_policy(context: Any, batch: Batch, policy: Any) -> Tensor:
    """What the critics give the data's action beyond one of the policy's own, or beyond the mean over its choices, ``[B]`` (AWAC)."""
    rows, network = batch.rows, context.models["critics"].network
    own = smallest_value(network, rows.observation, bounded_draw(context, policy))
    return min_over_critics(network(rows.observation, rows.action)) - own


@dataclass(frozen=True)
class WeightedImitation:
    """Imitation of the data's actions, weighted by their advantages.

    Args:
        weight: of advantages.
        cap: largest weight, for the log.
        advantage: of context, batch and the policy's distribution.
        learning_rate: of the context; None keeps it.
    """

    weight: Weight
    cap: float = 100.0
    advantage: Callable[[Any, Batch, Any], Tensor] = advantage_column
    learning_rate: Callable[[Any], float] | None = None
    models: ClassVar[tuple[str, ...]] = ("policy",)

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it reads."""
        column = ("advantage",) if self.advantage is advantage_column else ()
        return (*column, *getattr(self.weight, "reads", ()))

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step towards the data's unit actions ``[B, D]`` or choices ``[B]``, each weighed by its advantage (constant).

        Returns:
            ``policy_loss``, ``entropy`` (nats), the means ``advantage`` and ``action_weight``, and the ``capped_share`` of the rows.
        """
        rows, model = batch.rows, context.models["policy"]
        policy = model.distribution(rows.observation)
        advantage = self.advantage(context, batch, policy)
        weight = self.weight(context, batch, advantage)
        loss = weighted_likelihood(policy.log_prob(rows.action), weight=weight)
        if self.learning_rate is not None:
            model.learning_rate = self.learning_rate(context)
        model.step(loss)
        context.finish_update("policy")
        return {
            "policy_loss": loss.detach(),
            "entropy": policy.entropy().detach().mean(),
            "advantage": advantage.mean(),
            "action_weight": weight.mean(),
            "capped_share": (weight >= self.cap).float().mean(),
        }
