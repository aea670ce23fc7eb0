"""FamO2O: one policy for every balance between improving and imitating, and a model that picks the balance of each state.

Paper: Wang et al. 2023, arXiv 2310.17966. ``famo2o`` is its form over iql, ``famo2o-cql`` that over cql.

Equations (beta: the balance coefficient; e: its encoding by sines and cosines; pi_u: the universal model; pi_b: the balance model)
    beta ~ uniform on [low, high] while the data set is learned from, pi_b(.|s) afterwards (a constant in the universal model's loss)

    over iql    universal  = -mean min(exp(beta A), cap) log pi_u(a | s, e(beta)),          A = min_k Qbar_k(s, a) - V(s) with the new V
                balance    = mean [tau log pi_b(u|s) - min_k Qbar_k(s, a')],                a' ~ pi_u(.|s, e(beta(u))), u ~ pi_b(.|s)
                tau        = tau (H - target),                                              H the entropy of u, target -1/2
    over cql    universal  = mean [alpha log pi_u(a'|s, e(beta)) - beta min_k Q_k(s, a')]
                balance    = -mean min_k Q_k(s, a'),                                        a' as above; no entropy

WHO ACTS   pi_u with the deterministic choice of pi_b; a sample while collecting, the mean in evaluation.
KEPT       one buffer that begins with the data set.
WORTH      iql's advantages, or cql's critics; neither sees beta.
MOVES      every row by its own beta: large ones follow the critics, small ones the data.

What differs from the parents: the conditioned policy, beta in its loss, and the balance model. Over iql the critics and values are in use
in the authors' order: V, balance model, its temperature, universal model, critics.
The authors' iql code multiplies advantages [N] with coefficients [N, 1], so that every row is weighted by the batch's mean of
min(exp(beta_i A_j), cap) whatever its own beta is: ``released_broadcast``. Their cql code maps (-1, 1) onto the range without shifting it,
so that Q can count negatively (``released_map``), and judges the next state by the coefficient of the present one (``next_coefficient``).
They draw u and a' with the same random key; here they are independent. The per-row weights are our reading of the paper.
Checked against: the authors' code and the intended equations (``tests/vectors``: famo2o).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.buffers.control_retainers import DataRewards, DataSet, ReplayAndData, States
from rheostat.collect.control.collectors import StepByStep
from rheostat.credit.td_annotations import soft_draw
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic import Critics, Entropy, Found, smallest_q, squashed_actor, tanh_mean_actor
from rheostat.learner.control_models import Build, Trainable
from rheostat.learner.dial import Dial
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, UsesData, data_first
from rheostat.learner.stages import Staged
from rheostat.methods.control.cql import Penalty, composition_of, gradient_step, models_of
from rheostat.methods.control.iql import Cosine, ImplicitCritics, imitation_of
from rheostat.objectives.actor import deterministic_actor_loss, soft_actor_loss, temperature_loss
from rheostat.objectives.temporal_difference import least
from rheostat.objectives.weights import exponential_weight
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.actors import Temperature
from rheostat.policies.control.balance import BalanceModel, sin_cos_encoding

Balance = Literal["model", "random"]
NOT_ASKED = "balance random never asks the balance model, so leave it alone, or let the model pick"
"""Why an option of the balance model cannot act."""


@dataclass(frozen=True)
class Family:
    """The range of coefficients, and who picks one."""

    low: float = option(1.0, short="coefficient_low")
    """Smallest balance coefficient."""
    high: float = option(5.0, short="coefficient_high")
    """Largest balance coefficient."""
    encoding_size: int = option(6, at_least=2)
    """Features of the encoded coefficient; even."""
    balance: Balance = option("model")
    """Who picks coefficients once the policy acts: the balance model, or chance (to see what the model is good for)."""
    learning_rate: float = option(3e-4, short="balance_learning_rate", at_least=0)
    """Adam step size of the balance model."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RheostatError(
                f"coefficient_low {self.low:g} and coefficient_high {self.high:g} leave nothing to choose between: the first must be below "
                "the second."
            )
        if self.encoding_size % 2:
            raise RheostatError(f"encoding_size is {self.encoding_size}: sines and cosines come in pairs, so it must be even.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"learning_rate": NOT_ASKED} if self.balance == "random" else {}

    def beside(self, context: Any, observation: Tensor, coefficient: Tensor) -> Tensor:
        """``[B, observations + encoding]``."""
        return torch.cat([own(context, observation), sin_cos_encoding(coefficient, self.encoding_size)], -1)

    def model(self, hidden: tuple[int, ...], *, released_map: bool = False) -> Trainable:
        """The balance model."""

        def build(context: Any) -> BalanceModel:
            draw = context.streams["networks"]
            return BalanceModel(context.sizes[0], self.low, self.high, hidden=hidden, released_map=released_map, generator=draw)

        return Trainable(build, self.learning_rate)


def own(context: Any, observation: Tensor) -> Tensor:
    """An observation without a coefficient beside it."""
    return observation[:, : context.sizes[0]]


class UniversalPolicy(Trainable):
    """One policy for every coefficient. Of observations alone, the member that the balance model picks (or, by chance, one in the middle);
    of those with a coefficient beside them, that member."""

    def __init__(self, build: Build, learning_rate: float, family: Family) -> None:
        super().__init__(build, learning_rate)
        self.family = family

    def bind(self, context: Any, name: str) -> None:
        """Build the network; the balance model is bound later."""
        super().bind(context, name)
        self.context = context

    def distribution(self, seen: Tensor) -> Any:
        """The policy of unit actions."""
        if seen.shape[-1] != self.context.sizes[0]:
            return self.network.distribution(seen)
        family = self.family
        if family.balance == "random":
            picked = torch.full((len(seen),), (family.low + family.high) / 2)
        else:
            picked = self.context.models["balance"].network.mode(seen)
        return self.network.distribution(family.beside(self.context, seen, picked))


@dataclass(frozen=True)
class Coefficients:
    """A coefficient for every row, beside its observation and in the column ``coefficient``: uniform, or from the balance model.

    Args:
        family: the range.
        picked: whether the balance model picks.
        following: whether the next observation has one of its own, that of the present one, or none.
    """

    family: Family
    picked: bool = False
    following: Literal["own", "current", "none"] = "none"
    models: ClassVar[tuple[str, ...]] = ("balance",)
    writes: ClassVar[tuple[str, ...]] = ("coefficient",)

    def describe(self) -> dict[str, int | str]:
        """The range."""
        return {"balance coefficients": f"{self.family.low:g} to {self.family.high:g}"}

    @torch.no_grad()
    def draw(self, context: Any, observation: Tensor) -> Tensor:
        """``[B]``."""
        generator, family = context.streams["coefficients"], self.family
        if self.picked:
            noise = torch.randn(len(observation), 1, generator=generator)
            found: Tensor = context.models["balance"].network.draw(own(context, observation), noise)[0]
            return found
        return family.low + (family.high - family.low) * torch.rand(len(observation), generator=generator)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        now = self.draw(context, rows.observation)
        seen = rows.clone(recurse=False)
        seen.observation = self.family.beside(context, rows.observation, now)
        if self.following != "none":
            later = now if self.following == "current" else self.draw(context, rows.next_observation)
            seen.next_observation = self.family.beside(context, rows.next_observation, later)
        found = batch.with_rows(seen)
        found.columns["coefficient"] = now
        return found


@dataclass(frozen=True)
class BalanceStep:
    """What the balance models of both forms share: a reparameterised choice, and what is said of it."""

    family: Family

    def choose(self, context: Any, batch: Batch) -> tuple[Tensor, Tensor, Found]:
        """Observations with a choice of the balance model beside them, its log-probability ``[B]``, and scalars."""
        observation = own(context, batch.rows.observation)
        noise = torch.randn(len(observation), 1, generator=context.streams["coefficients"])
        coefficient, log_prob = context.models["balance"].network.draw(observation, noise)
        chosen = coefficient.detach()
        found = {"coefficient": chosen.mean(), "coefficient_deviation": chosen.std(unbiased=False)}
        return self.family.beside(context, observation, coefficient), log_prob, found


@dataclass(frozen=True)
class ImplicitBalanceStep(BalanceStep):
    """The balance model through universal policy and target critics, and its temperature: before anything but V moves."""

    target_entropy: float = -0.5
    models: ClassVar[tuple[str, ...]] = ("balance", "balance temperature", "policy", "target critics")

    def step(self, context: Any, batch: Batch) -> Found:
        """One step."""
        seen, log_prob, found = self.choose(context, batch)
        policy = context.models["policy"].distribution(seen)
        noise = torch.randn(policy.mean.shape, generator=context.streams["updates"])
        action = torch.addcmul(policy.mean, policy.log_std.exp(), noise)
        q = least(context.models["target critics"].network(batch.rows.observation, action, frozen=True))
        heat = context.models["balance temperature"]
        temperature = heat.network.value
        loss = soft_actor_loss(q, log_prob, temperature)
        context.models["balance"].descend(loss)
        heat.descend(temperature_loss(heat.network.log, log_prob, self.target_entropy))
        for name in ("balance", "balance temperature"):
            context.finish_update(name)
        return {"balance_loss": loss.detach(), "balance_temperature": temperature} | found


@dataclass(frozen=True)
class SoftBalanceStep(BalanceStep):
    """The balance model up the critics, through the universal policy."""

    models: ClassVar[tuple[str, ...]] = ("balance", "policy", "critics")

    def step(self, context: Any, batch: Batch) -> Found:
        """One step."""
        seen, _, found = self.choose(context, batch)
        action, _ = soft_draw(context, seen)
        loss = deterministic_actor_loss(smallest_q(context, batch, action))
        context.models["balance"].descend(loss)
        context.finish_update("balance")
        return {"balance_loss": loss.detach()} | found


@dataclass(frozen=True)
class FamilyWeights:
    """How much every action of the data counts, by every row's own coefficient."""

    cap: float = option(100.0, short="weight_cap", above=0)
    """Largest weight of an action of the data."""
    released_broadcast: bool = option(False)
    """Weight every row by the batch's mean over coefficients, as the authors' code does."""
    reads: ClassVar[tuple[str, ...]] = ("coefficient",)

    def __call__(self, context: Any, batch: Batch, advantage: Tensor) -> Tensor:
        """Of advantages ``[B]``."""
        return family_weight(advantage, batch.columns["coefficient"], self.cap, broadcast=self.released_broadcast)


def family_weight(advantage: Tensor, coefficient: Tensor, cap: float = 100.0, *, broadcast: bool = False) -> Tensor:
    """``min(exp(beta A), cap)`` per row, a constant.

    Args:
        advantage: ``[B]``.
        coefficient: ``[B]``.
        cap: largest weight.
        broadcast: row j takes the mean over i of ``min(exp(beta_i A_j), cap)``: the authors' code.

    Returns:
        ``[B]``.
    """
    if not broadcast:
        return exponential_weight(advantage, coefficient, cap)
    pairs = (len(coefficient), len(advantage))
    return exponential_weight(advantage.expand(pairs), coefficient.unsqueeze(-1).expand(pairs), cap).mean(0)


@dataclass(frozen=True)
class BalanceTemperature:
    """Of the balance model's entropy."""

    target_entropy: float = option(-0.5)
    """Entropy that the balance model's temperature holds, nats, of the number in (-1, 1)."""
    initial: float = option(1.0, short="initial_temperature", above=0)
    """Where it starts."""
    learning_rate: float = option(3e-4, short="temperature_learning_rate", at_least=0)
    """Adam step size of the balance model's temperature."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return dict.fromkeys(("target_entropy", "initial", "learning_rate"), NOT_ASKED) if method.family.balance == "random" else {}


@dataclass(frozen=True)
class FamO2O:
    """The authors' setting, with their class's range of coefficients; the preset antmaze is that of their experiments."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States()
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the universal policy."""
    schedule: Cosine = Cosine(False)
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of actor, critics and balance model."""
    log_std: tuple[float, float] = option((-5.0, 2.0))
    """Limits of the universal policy's log standard deviation."""
    critics: ImplicitCritics = ImplicitCritics(values_in_use="after")
    weights: FamilyWeights = FamilyWeights()
    family: Family = Family()
    heat: BalanceTemperature = BalanceTemperature()
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "antmaze": {"expectile": 0.9, "coefficient_low": 8.0, "coefficient_high": 14.0, "reward_shift": -1.0}
    }

    def compose(self) -> Staged:
        """IQL's answers, with a coefficient for every row and a model that picks it once the policy acts."""
        family = self.family
        build = tanh_mean_actor(self.hidden, self.log_std, family.encoding_size)
        models: dict[str, Any] = {"policy": UniversalPolicy(build, self.learning_rate, family)}
        models |= self.critics.models(self.hidden, self.learning_rate)
        models["balance"] = family.model(self.hidden)
        models["balance temperature"] = Trainable(lambda context: Temperature(self.heat.initial), self.heat.learning_rate)
        imitation = imitation_of(self, self.weights, self.weights.cap)
        balance = ImplicitBalanceStep(family, self.heat.target_entropy)

        def step(picked: bool) -> PerStep:
            return self.critics.step(self.batches.size, imitation, before=[Coefficients(family, picked)], between=[balance])

        return data_first(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(self.replay.share),
            step(False),
            models,
            stores=[DataSet(), self.rewards, self.states],
            read=AsRead(),
            log=self.log,
            online=step(family.balance == "model"),
        )


@dataclass(frozen=True)
class WeightedQ:
    """The smallest critic times the coefficient."""

    reads: ClassVar[tuple[str, ...]] = ("coefficient",)

    def __call__(self, context: Any, batch: Batch, action: Tensor) -> Tensor:
        """``[B]``."""
        return batch.columns["coefficient"] * smallest_q(context, batch, action)


@dataclass(frozen=True)
class FamO2OCQL:
    """The authors' locomotion setting over cql."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States()
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    tau: float = option(0.005, share=True)
    """Share of the new critics in the target critics after each gradient step."""
    learning_rate: float = option(3e-5, at_least=0)
    """Adam step size of the universal policy and of the temperature."""
    hidden: tuple[int, ...] = option((256, 256, 256), at_least=1)
    """Hidden layers of actor, critics and balance model."""
    critics: Critics = Critics(learning_rate=3e-4)
    penalty: Penalty = Penalty(1.0)
    entropy: Entropy = Entropy(form="log")
    entropy_in_backup: bool = option(False)
    """The entropy of later actions counts in the critics' target."""
    best_next_action: bool = option(False)
    """The target takes the best of ``penalty_actions`` actions at s' instead of one (AntMaze)."""
    imitation_steps: int = option(0, at_least=0)
    """First gradient steps, in which the policy imitates the data instead of asking the critics."""
    simultaneous: bool = option(False)
    """The policy is judged by the critics from before their step (CORL), not from after it."""
    family: Family = Family(0.5, 1.5)
    released_map: bool = option(False)
    """Map (-1, 1) onto (2 low - high, high), as the authors' code does: Q can then count negatively."""
    next_coefficient: Literal["own", "current"] = option("own")
    """The next state has a coefficient of its own, or (the authors' code) that of the present one."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"released_map": NOT_ASKED} if self.family.balance == "random" else {}

    def compose(self) -> Staged:
        """CQL's answers, with a coefficient for every row and a model that picks it once the policy acts."""
        family = self.family
        policy = UniversalPolicy(squashed_actor(self.hidden, family.encoding_size), self.learning_rate, family)
        models = {"policy": policy} | models_of(self) | {"balance": family.model(self.hidden, released_map=self.released_map)}

        def step(penalty: Penalty, picked: bool) -> PerStep:
            draw = Coefficients(family, picked, self.next_coefficient)
            return gradient_step(self, penalty, q_value=WeightedQ(), before=(draw,), after=(SoftBalanceStep(family),))

        return composition_of(self, models, step(self.penalty, False), step(self.penalty.online, family.balance == "model"))
