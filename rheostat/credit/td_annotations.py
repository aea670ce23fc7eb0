"""WHAT IS IT WORTH? as parts of a gradient step: what critics regress on, which moves with the critics.

Models have the names that they have everywhere: ``policy``, ``critics``, ``target critics``, ``temperature``, ``value``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.masking import standardise
from rheostat.objectives.actor import smoothed_action
from rheostat.objectives.conservative import uniform_log_density
from rheostat.objectives.temporal_difference import greedy_value, min_over_critics, soft_value, td_target
from rheostat.parts import Batch

REWARD_EPSILON = 1e-6
"""Added to the deviation that the rewards of a batch are divided by."""

Sampler = Callable[[Any, Tensor], tuple[Tensor, Tensor]]
"""From context and observations as read to reparameterised actions ``[B, D]`` and their log-probabilities ``[B]``; of choices, to their
probabilities ``[B, A]`` and the mean of their logarithms ``[B]``."""


def smallest_value(network: Any, observation: Tensor, action: Tensor, **how: Any) -> Tensor:
    """The smallest critic of actions ``[B, D]``; of choices, its mean over their probabilities ``[B, A]`` (Christodoulou 2019), ``[B]``."""
    if hasattr(network, "of_all"):
        return (action * network.of_all(observation, **how).amin(0)).sum(-1)
    return min_over_critics(network(observation, action, **how))


def soft_draw(context: Any, observation: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterised action of the policy ``[B, D]`` and its log-probability ``[B]``; of choices, all of them by their probabilities."""
    policy = context.models["policy"].network.distribution(observation)
    if not context.continuous:
        return policy.log_probs.exp(), -policy.entropy()
    found: tuple[Tensor, Tensor] = policy.draw(policy.noise(context.streams["updates"]))
    return found


@dataclass(frozen=True)
class SoftTarget:
    """``y = r + discount (min Qbar(s', a') - alpha log pi(a'|s'))``, and alpha as it is now."""

    entropy_in_backup: bool = True
    subset: int | None = None
    """Target critics, drawn anew, of which the least counts; None takes all (RLPD)."""
    sampler: Sampler = soft_draw
    models: ClassVar[tuple[str, ...]] = ("policy", "target critics", "temperature")
    writes: ClassVar[tuple[str, ...]] = ("target", "alpha")

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, alpha = batch.rows, context.models["temperature"].network.value
        action, log_prob = self.sampler(context, rows.next_observation)
        value = self.bootstrap(context, rows.next_observation, action)
        if self.entropy_in_backup:
            value = soft_value(value, log_prob, alpha)
        batch.columns["target"] = td_target(rows.reward, value, rows.discount)
        batch.facts["alpha"] = alpha
        return batch

    def bootstrap(self, context: Any, observation: Tensor, action: Tensor) -> Tensor:
        """The target critics' value of what follows, ``[B]``."""
        network = context.models["target critics"].network
        if self.subset is None:
            return smallest_value(network, observation, action)
        chosen = torch.randperm(network.networks, generator=context.streams["updates"])[: self.subset]
        return min_over_critics(network(observation, action, subset=chosen))


@dataclass(frozen=True)
class SmoothedTarget:
    """``y = r + discount min Qbar(s', a')``, a' of the target policy with clipped noise (TD3)."""

    noise: float = 0.2
    clip: float = 0.5
    models: ClassVar[tuple[str, ...]] = ("target policy", "target critics")
    writes: ClassVar[tuple[str, ...]] = ("target",)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        action = context.models["target policy"].network(rows.next_observation)
        noise = torch.randn(action.shape, generator=context.streams["updates"])
        action = smoothed_action(action, noise, scale=self.noise, clip=self.clip)
        value = min_over_critics(context.models["target critics"].network(rows.next_observation, action))
        batch.columns["target"] = td_target(rows.reward, value, rows.discount)
        return batch


def bounded_draw(context: Any, policy: Any) -> Tensor:
    """Actions as the environment takes them: inside the bounds, ``[B, D]``; of choices, the probabilities of all of them, ``[B, A]``."""
    if not context.continuous:
        probabilities: Tensor = policy.log_probs.exp()
        return probabilities
    return policy.sample(context.streams["updates"]).clamp(-1.0, 1.0)


@dataclass(frozen=True)
class PolicyValueTarget:
    """``y = r + discount min Qbar(s', a')``, a' of the policy, without entropy (AWAC)."""

    models: ClassVar[tuple[str, ...]] = ("policy", "target critics")
    writes: ClassVar[tuple[str, ...]] = ("target",)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        action = bounded_draw(context, context.models["policy"].distribution(rows.next_observation))
        value = smallest_value(context.models["target critics"].network, rows.next_observation, action)
        batch.columns["target"] = td_target(rows.reward, value, rows.discount)
        return batch


@dataclass(frozen=True)
class BestOfData:
    """The smallest target critic of the data's own action, as it was before anything moved (IQL)."""

    models: ClassVar[tuple[str, ...]] = ("target critics",)
    writes: ClassVar[tuple[str, ...]] = ("best",)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        batch.columns["best"] = min_over_critics(context.models["target critics"].network(rows.observation, rows.action))
        return batch


@dataclass(frozen=True)
class ImplicitValues:
    """``y = r + discount V(s')`` and the advantage ``best - V(s)``, with V as it is where this part stands: before its step or after."""

    models: ClassVar[tuple[str, ...]] = ("value",)
    reads: ClassVar[tuple[str, ...]] = ("best",)
    writes: ClassVar[tuple[str, ...]] = ("advantage", "target")

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, value = batch.rows, context.models["value"].network
        batch.columns["advantage"] = batch.columns["best"] - value(rows.observation)
        batch.columns["target"] = td_target(rows.reward, value(rows.next_observation), rows.discount)
        return batch

    def step(self, context: Any, batch: Batch) -> dict[str, Any]:
        """The same between two updates."""
        self(context, batch)
        return {}


def policy_actions(context: Any, observation: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Actions of the policy ``[B, count, d]`` and their log-densities ``[B, count]``, nats."""
    policy = context.models["policy"].network.distribution(observation)
    noise = torch.randn((count, *policy.mean.shape), generator=context.streams["updates"])
    action, log_density = policy.draw(noise)
    return action.transpose(0, 1), log_density.transpose(0, 1)


@dataclass(frozen=True)
class BestNextTarget:
    """``y`` of the best of several next actions of the policy, or of all choices, and alpha as it is now."""

    entropy_in_backup: bool = False
    actions: int = 10
    models: ClassVar[tuple[str, ...]] = ("policy", "target critics", "temperature")
    writes: ClassVar[tuple[str, ...]] = ("target", "alpha")

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, alpha = batch.rows, context.models["temperature"].network.value
        network = context.models["target critics"].network
        if context.continuous:
            action, log_density = policy_actions(context, rows.next_observation, self.actions)
            value = network.of_many(rows.next_observation, action).amin(0)
        else:
            log_density = context.models["policy"].network.distribution(rows.next_observation).log_probs
            value = network.of_all(rows.next_observation).amin(0)
        value, best = value.max(-1)
        if self.entropy_in_backup:
            value = value - alpha * log_density.gather(-1, best.unsqueeze(-1)).squeeze(-1)
        batch.columns["target"] = td_target(rows.reward, value, rows.discount)
        batch.facts["alpha"] = alpha
        return batch


@dataclass(frozen=True)
class OtherActions:
    """Actions that are not the data's: columns ``other actions`` ``[B, 3n, d]`` of uniform, pi(s), pi(s'), and their ``log density``
    ``[B, 3n]``, nats. Choices need none: there are no others than all."""

    actions: int = 10
    models: ClassVar[tuple[str, ...]] = ("policy",)
    writes: ClassVar[tuple[str, ...]] = ("other actions", "log density")

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        if not context.continuous:
            return batch
        here, here_density = policy_actions(context, rows.observation, self.actions)
        there, there_density = policy_actions(context, rows.next_observation, self.actions)
        anywhere = 2 * torch.rand(here.shape, generator=context.streams["updates"]) - 1
        bound = torch.ones(here.shape[-1])
        uniform = uniform_log_density(-bound, bound).expand_as(here_density)
        batch.columns["other actions"] = torch.cat([anywhere, here, there], 1)
        batch.columns["log density"] = torch.cat([uniform, here_density, there_density], 1)
        return batch


@dataclass(frozen=True)
class GreedyTarget:
    """``y = r + discount Qbar(s', a*)``, a* the best of the slow copy or (double) of the network."""

    double: bool = False
    models: ClassVar[tuple[str, ...]] = ("policy", "target policy")
    writes: ClassVar[tuple[str, ...]] = ("target",)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        selector = context.models["policy"].network(rows.next_observation) if self.double else None
        value = greedy_value(context.models["target policy"].network(rows.next_observation), selector)
        batch.columns["target"] = td_target(rows.reward, value, rows.discount)
        return batch


@dataclass(frozen=True)
class StandardisedRewards:
    """The rewards of every batch standardised, times a scale (the authors)."""

    scale: float

    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows.clone(recurse=False)
        rows.reward = self.scale * standardise(rows.reward, eps=REWARD_EPSILON)
        return batch.with_rows(rows)
