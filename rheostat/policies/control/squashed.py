"""Policies of bounded actions: policies act in ``[-1, 1]``, and actions are rescaled to the environment's units before they are executed.

Unit actions make action noise, target entropies and critics independent of what an environment calls its bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from rheostat.errors import RheostatError
from rheostat.policies.control.distributions import Gaussian

LOG_2 = math.log(2.0)
EDGE = 1.0 - 1e-6
"""Actions of other policies are clamped to this before the inverse of tanh."""
BEYOND = 1.0 + 1e-5
"""An action farther outside the bounds than rounding explains."""


@dataclass(slots=True)
class SquashedGaussian:
    """``a = tanh(u)``, ``u`` normal with independent dimensions; actions are float ``[N, D]`` in (-1, 1) (Haarnoja et al. 2018)."""

    mean: Tensor  # [N, D] of u
    log_std: Tensor  # [N, D] of u, or [D]

    @property
    def normal(self) -> Gaussian:
        """The distribution of ``u``."""
        return Gaussian(self.mean, self.log_std)

    def noise(self, generator: torch.Generator) -> Tensor:
        """Standard normal draws ``[N, D]``."""
        return torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)

    def draw(self, noise: Tensor, *, stability: float | None = None) -> tuple[Tensor, Tensor]:
        """Reparameterised action ``[N, D]`` and its log-probability ``[N]``; the gradient flows through both.

        Args:
            noise: ``[N, D]``, standard normal.
            stability: None is exact; a number takes ``log(1 - a^2 + stability)`` as the authors of SAC and Stable-Baselines3 (1e-6) do,
                which differs where the action saturates.
        """
        u = torch.addcmul(self.mean, self.log_std.exp(), noise)
        action = u.tanh()
        return action, self._log_prob(u, action, noise, stability)

    def _log_prob(self, u: Tensor, action: Tensor, noise: Tensor, stability: float | None) -> Tensor:
        shrink = 2 * (LOG_2 - u - softplus(-2 * u)) if stability is None else (1 - action.square() + stability).log()
        constant = 0.5 * math.log(2 * math.pi)
        return (-0.5 * noise.square() - self.log_std - constant - shrink).sum(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, D]``."""
        return self.normal.sample(generator).tanh()

    def mode(self) -> Tensor:
        """``tanh`` of the mean, ``[N, D]`` (the median; the density's own mode has no closed form)."""
        return self.mean.tanh()

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, nats, of unit actions; an action at the bound counts as just inside, one beyond it has log-density minus infinity."""
        u = action.clamp(-EDGE, EDGE).atanh()
        found = self._log_prob(u, action, (u - self.mean) * (-self.log_std).exp(), None)
        return torch.where((action.abs() > BEYOND).any(-1), -torch.inf, found)


class UnitPolicy(Protocol):
    """A distribution of unit actions ``[N, D]``, which :class:`Rescaled` converts to the environment's units."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, D]`` in ``[-1, 1]``."""
        ...

    def mode(self) -> Tensor:
        """``[N, D]``, the action without exploration."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, nats, of unit actions ``[N, D]``."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """The environment's action bounds and the maps between them and ``[-1, 1]``.

    Attributes:
        centre, half: ``[D]`` float32, the middle and half the width of every dimension.
    """

    centre: Tensor
    half: Tensor

    @classmethod
    def of(cls, space: Any, method: str) -> Bounds:
        """Of a Gymnasium ``Box``.

        Raises:
            RheostatError: actions are not a Box, or a dimension has no finite bounds.
        """
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        if low is None or high is None:
            raise RheostatError(
                f"{method} needs continuous actions (a Box), and this environment has {space}: use ppo, or dqn for one Discrete choice, "
                "and iql, cql, awac or bc where such choices come from a data set."
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
            raise RheostatError(
                f"{method} acts inside finite bounds, and this environment's actions go from {low.min()} to {high.max()}: give the action "
                "space finite bounds (gymnasium.wrappers.RescaleAction), or use ppo, which needs none."
            )
        low, high = (torch.as_tensor(np.asarray(x, dtype=np.float32).reshape(-1)) for x in (low, high))
        return cls((low + high) / 2, (high - low) / 2)

    def to_environment(self, unit: Tensor) -> Tensor:
        """``[N, D]`` unit actions in the environment's units."""
        return torch.addcmul(self.centre, self.half, unit)

    def to_unit(self, action: Tensor) -> Tensor:
        """``[N, ...]`` actions in the environment's units as unit actions ``[N, D]``, limited to ``[-1, 1]`` as the environment clips."""
        return self.drawn(action).clamp(-1.0, 1.0)

    def drawn(self, action: Tensor) -> Tensor:
        """``[N, ...]`` actions in the environment's units as the unit actions ``[N, D]`` that were sampled: they may lie out of bounds."""
        return (action.reshape(len(action), -1) - self.centre) / self.half

    @property
    def log_volume(self) -> float:
        """log of the volume of a unit action's neighbourhood in the environment's units, nats: densities differ by it."""
        return float(self.half.log().sum())


@dataclass(slots=True)
class Rescaled:
    """A policy of unit actions in the environment's units."""

    unit: UnitPolicy
    bounds: Bounds

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, D]``."""
        return self.bounds.to_environment(self.unit.sample(generator))

    def mode(self) -> Tensor:
        """``[N, D]``."""
        return self.bounds.to_environment(self.unit.mode())

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, nats, of actions in the environment's units as they were drawn, before the environment clips them."""
        return self.unit.log_prob(self.bounds.drawn(action)) - self.bounds.log_volume


@dataclass(slots=True)
class DeterministicAction:
    """A deterministic unit action with Gaussian exploration noise (TD3). A sample may leave the bounds, where the environment clips it;
    the density is that of the sample."""

    action: Tensor  # [N, D]
    deviation: float = 0.0

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, D]``."""
        if not self.deviation:
            return self.action
        noise = torch.randn(self.action.shape, generator=generator, dtype=self.action.dtype)
        return self.action + self.deviation * noise

    def mode(self) -> Tensor:
        """The action itself, ``[N, D]``."""
        return self.action

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, nats; NaN without noise, where there is no density."""
        if not self.deviation:
            return torch.full_like(self.action[:, 0], float("nan"))
        return Gaussian(self.action, self.action.new_full((self.action.shape[-1],), math.log(self.deviation))).log_prob(action)
