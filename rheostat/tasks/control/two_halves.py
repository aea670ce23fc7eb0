"""A point mass whose offline data are good in one half of the environment and useless in the other.

The environment is that of :class:`~rheostat.tasks.control.two_optima.TwoGoals` (a box, thrust, friction) with one goal in the middle: it
starts anywhere and pays 1 minus the distance to the middle over that of a corner, for 50 steps. The behaviour policy of the data: left of
the middle an expert that brakes in time; right of it uniform actions. So imitation is right on the left and wrong on the right.

Reconstructed from the claim it serves (FamO2O: data of state-dependent quality); distances, thrust and the expert are this library's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.tasks.control.two_optima import TwoGoals

CORNER = math.sqrt(2.0)
PULL, BRAKE, NOISE = 4.0, 16.0, 0.1
"""Thrust of the expert per distance and per velocity, and the deviation of its noise."""


class TwoHalves(TwoGoals):
    """The observation is position and velocity, ``[4]``; never ends by itself."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1.0, 1.0, 2)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, 1.0 - float(np.linalg.norm(self.position)) / CORNER, terminated, truncated, info


def expert(observation: Tensor) -> Tensor:
    """Actions of the expert, ``[N, 2]`` in [-1, 1], from observations ``[N, 4]``."""
    return (-PULL * observation[:, :2] - BRAKE * observation[:, 2:]).clamp(-1.0, 1.0)


def halves(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The behaviour policy of the data: actions ``[N, 2]``, and log-probabilities that are NaN (the expert's are clipped)."""
    size = (len(observation), 2)
    good = (expert(observation) + NOISE * torch.randn(size, generator=generator)).clamp(-1.0, 1.0)
    useless = 2 * torch.rand(size, generator=generator) - 1
    return torch.where(observation[:, :1] < 0, good, useless), torch.full((size[0],), float("nan"))
