"""Actors of unit actions for methods with a state-action critic: squashed Gaussian, deterministic, Gaussian around a squashed mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError
from rheostat.policies.control.critics import Stack
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.squashed import DeterministicAction, SquashedGaussian
from rheostat.policies.control.views import Front

LOG_STD = (-20.0, 2.0)
"""Limits of the log standard deviation (Haarnoja et al. 2018, Stable-Baselines3)."""
NO_DEVIATION = "a softmax over discrete actions has no deviation, so leave it at its default"
"""Why an option of the standard deviation has no effect."""


class SquashedActor(nn.Module):
    """``tanh`` of a Gaussian whose mean and deviation depend on the state (SAC).

    Args:
        observations, actions: features that the perceptron reads, and of a unit action.
        hidden: widths of the hidden layers.
        log_std: limits of the log standard deviation, by clipping.
        front: what makes features of pictures.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        hidden: tuple[int, ...] = (256, 256),
        log_std: tuple[float, float] = LOG_STD,
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        self.limits = log_std
        self.stack = Stack(1, observations, hidden, 2 * actions, generator=generator)

    def distribution(self, observation: Tensor) -> SquashedGaussian:
        """For normalised observations ``[N, observations]``."""
        mean, log_std = self.stack(self.front(observation))[0].chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*self.limits))


class DeterministicActor(nn.Module):
    """``tanh`` of the network's output (TD3); acts with noise of ``deviation`` while collecting."""

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        hidden: tuple[int, ...] = (256, 256),
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        self.stack = Stack(1, observations, hidden, actions, generator=generator)

    def forward(self, observation: Tensor) -> Tensor:
        """Unit actions ``[N, actions]``."""
        return self.stack(self.front(observation))[0].tanh()

    def distribution(self, observation: Tensor) -> DeterministicAction:
        """Without noise."""
        return DeterministicAction(self(observation))


class TanhMeanActor(nn.Module):
    """A Gaussian around a squashed mean with a deviation that does not depend on the state (IQL, AWAC, FamO2O).

    Samples may leave ``[-1, 1]``; the environment clips them, and the log-probability is that of the sample as drawn.
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        hidden: tuple[int, ...] = (256, 256),
        log_std: tuple[float, float] = LOG_STD,
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        self.limits = log_std
        self.stack = Stack(1, observations, hidden, actions, generator=generator)
        self.log_std = nn.Parameter(torch.zeros(actions))

    def distribution(self, observation: Tensor) -> Gaussian:
        """For normalised observations ``[N, observations]``."""
        return Gaussian(self.stack(self.front(observation))[0].tanh(), self.log_std.clamp(*self.limits))


class Temperature(nn.Module):
    """Weight alpha of the entropy, learned as its logarithm.

    Args:
        start: where it begins, above 0.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        if not start > 0:
            raise RheostatError(f"The temperature starts at {start}: it is the exponential of what is learned, so it must be above 0.")
        self.log = nn.Parameter(torch.tensor([math.log(start)]))

    @property
    def value(self) -> float:
        """alpha, a constant."""
        return math.exp(self.log.item())
