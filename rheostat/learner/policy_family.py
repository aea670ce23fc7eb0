"""A policy for every balance between improving and imitating, and the model that picks the balance of each state.

:mod:`rheostat.methods.control.famo2o` has the equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.credit.td_annotations import soft_draw
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import Found, reading, smallest_q
from rheostat.learner.control_models import Build, TrainableNetwork
from rheostat.objectives.actor import deterministic_actor_loss, soft_actor_loss, temperature_loss
from rheostat.objectives.temporal_difference import min_over_critics
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.balance import BalanceModel, sin_cos_encoding

Balance = Literal["model", "random"]


NOT_ASKED = "balance random never asks the balance model, so leave it alone, or let the model pick"
"""Why an option of the balance model cannot act."""


@dataclass(frozen=True)
class Family:
    """The range of coefficients, and what chooses one."""

    low: float = option(1.0, short="coefficient_low")
    """Smallest balance coefficient."""
    high: float = option(5.0, short="coefficient_high")
    """Largest balance coefficient."""
    encoding_size: int = option(6, at_least=2)
    """Features of the encoded coefficient; even."""
    balance: Balance = option("model")
    """model: the balance model picks coefficients where the policy acts, and in gradient steps once it does. random: the policy acts with
    the middle of the range, and gradient steps go on drawing uniformly (to see what the model is good for)."""
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
        """``[B, n + encoding]`` float32, from observations ``[B, n]`` (or wider ones, cut to n) and coefficients ``[B]``."""
        return torch.cat([own(context, observation), sin_cos_encoding(coefficient, self.encoding_size)], -1)

    def model(self, hidden: tuple[int, ...], *, released_map: bool = False) -> TrainableNetwork:
        """The balance model."""

        def build(context: Any) -> BalanceModel:
            seen, others = reading(context)
            return BalanceModel(seen, self.low, self.high, hidden=hidden, released_map=released_map, **others)

        return TrainableNetwork(build, self.learning_rate)


def own(context: Any, observation: Tensor) -> Tensor:
    """Observations ``[B, n]`` of ``[B, n]`` or, with an encoded coefficient beside them, ``[B, n + encoding]``."""
    return observation[:, : context.sizes[0]]


class UniversalPolicy(TrainableNetwork):
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
        """The range of coefficients, for printing."""
        return {"balance coefficients": f"{self.family.low:g} to {self.family.high:g}"}

    @torch.no_grad()
    def draw(self, context: Any, observation: Tensor) -> Tensor:
        """Coefficients ``[B]``, float32 in the family's range, for observations ``[B, ...]`` with or without a coefficient beside them."""
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
    """Base class of both updates of the balance model: a reparameterised sample and its metrics."""

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
        """One Adam step of the balance model and of its temperature, at observations ``[B, n]`` without a coefficient.

        Returns:
            ``balance_loss``, ``balance_temperature`` (from before its step), and mean and deviation of the drawn coefficients ``[B]``.
        """
        seen, log_prob, found = self.choose(context, batch)
        policy = context.models["policy"].distribution(seen)
        noise = torch.randn(policy.mean.shape, generator=context.streams["updates"])
        action = torch.addcmul(policy.mean, policy.log_std.exp(), noise)
        q = min_over_critics(context.models["target critics"].network(batch.rows.observation, action, frozen=True))
        heat = context.models["balance temperature"]
        temperature = heat.network.value
        loss = soft_actor_loss(q, log_prob, temperature)
        context.models["balance"].step(loss)
        heat.step(temperature_loss(heat.network.log, log_prob, self.target_entropy))
        for name in ("balance", "balance temperature"):
            context.finish_update(name)
        return {"balance_loss": loss.detach(), "balance_temperature": temperature} | found


@dataclass(frozen=True)
class SoftBalanceStep(BalanceStep):
    """Updates the balance model by gradient ascent on the critics, through the universal policy."""

    models: ClassVar[tuple[str, ...]] = ("balance", "policy", "critics")

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of the balance model at observations ``[B, n]``; returns ``balance_loss``, and mean and deviation of the drawn
        coefficients ``[B]``."""
        seen, _, found = self.choose(context, batch)
        action, _ = soft_draw(context, seen)
        loss = deterministic_actor_loss(smallest_q(context, batch, action))
        context.models["balance"].step(loss)
        context.finish_update("balance")
        return {"balance_loss": loss.detach()} | found


@dataclass(frozen=True)
class BalanceTemperature:
    """Of the balance model's entropy."""

    target_entropy: float = option(-0.5)
    """Entropy that the balance model's temperature holds, nats, of the number in (-1, 1)."""
    initial: float = option(1.0, short="initial_temperature", above=0)
    """Temperature of the balance model's entropy at the start."""
    learning_rate: float = option(3e-4, short="temperature_learning_rate", at_least=0)
    """Adam step size of the balance model's temperature."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return dict.fromkeys(("target_entropy", "initial", "learning_rate"), NOT_ASKED) if method.family.balance == "random" else {}


@dataclass(frozen=True)
class WeightedQ:
    """The smallest critic times the coefficient."""

    reads: ClassVar[tuple[str, ...]] = ("coefficient",)

    def __call__(self, context: Any, batch: Batch, action: Tensor) -> Tensor:
        """``[B]``."""
        return batch.columns["coefficient"] * smallest_q(context, batch, action)
