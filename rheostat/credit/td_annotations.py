"""WHAT IS IT WORTH? as parts of a gradient step: what critics regress on, which moves with the critics.

Models have the names that they have everywhere: ``policy``, ``critics``, ``target critics``, ``temperature``, ``value``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.objectives.actor import smoothed_action
from rheostat.objectives.temporal_difference import least, soft_value, td_target
from rheostat.parts import Batch

Sampler = Callable[[Any, Tensor], tuple[Tensor, Tensor]]
"""From context and observations as read to reparameterised actions ``[B, D]`` and their log-probabilities ``[B]``."""


def soft_draw(context: Any, observation: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterised action of the policy ``[B, D]`` and its log-probability ``[B]``."""
    policy = context.models["policy"].network.distribution(observation)
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
            return least(network(observation, action))
        chosen = torch.randperm(network.stack.networks, generator=context.streams["updates"])[: self.subset]
        return least(network(observation, action, subset=chosen))


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
        value = least(context.models["target critics"].network(rows.next_observation, action))
        batch.columns["target"] = td_target(rows.reward, value, rows.discount)
        return batch


def bounded_draw(context: Any, policy: Any) -> Tensor:
    """Actions as the environment takes them: inside the bounds, ``[B, D]``."""
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
        value = least(context.models["target critics"].network(rows.next_observation, action))
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
        batch.columns["best"] = least(context.models["target critics"].network(rows.observation, rows.action))
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
