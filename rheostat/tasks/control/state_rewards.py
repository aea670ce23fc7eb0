"""Rewards that are functions of the state an action leads to: computed anew for a data set, and paid in an environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rheostat.errors import RheostatError, shown_error
from rheostat.tasks.control.environments import Environments, Step

RewardFunction = Callable[[NDArray[np.float32]], Any]
"""From observations ``[N, k]`` as the environment gives them, after the action, to rewards ``[N]``."""


class StateReward:
    """A reward function with its answers checked.

    Args:
        function: from observations ``[N, k]`` to N numbers.
        name: for sentences.
    """

    def __init__(self, function: RewardFunction, name: str = "") -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def __call__(self, observation: Tensor) -> Tensor:
        """Rewards ``[N]``, float32, of raw observations ``[N, k]``.

        Raises:
            RheostatError: the function fails, or returns anything but one finite number per observation.
        """
        try:
            found = np.asarray(self.function(observation.detach().numpy()), dtype=np.float32)
        except Exception as error:  # whatever the user's code does
            raise RheostatError(
                f"The reward {self.name} cannot be computed from observations {list(observation.shape)}: {shown_error(error)}. It must "
                "be a function of the observation after the action."
            ) from error
        if found.shape != (len(observation),):
            raise RheostatError(
                f"The reward {self.name} returned numbers of shape {list(found.shape)} for {len(observation)} observations: return one "
                "number for each."
            )
        if not np.isfinite(found).all():
            raise RheostatError(
                f"The reward {self.name} is not finite for {int((~np.isfinite(found)).sum())} observations: make it finite."
            )
        return torch.from_numpy(found)


class NearGoal:
    """Reward 1 within a distance of a goal, in the units of the observation.

    Args:
        goal: an observation, ``[k]``.
        distance: Euclidean, above 0.
    """

    def __init__(self, goal: Tensor, distance: float) -> None:
        self.goal, self.distance = goal, distance

    def __call__(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        near = np.linalg.norm(observation - self.goal.numpy(), axis=-1) <= self.distance
        return near.astype(np.float32)


class Rewarded:
    """Environments that pay another reward; everything else is theirs.

    Args:
        environments: of vectors of numbers.
        reward: of the state that an action leads to.
    """

    def __init__(self, environments: Environments, reward: StateReward) -> None:
        self._environments, self._reward = environments, reward

    def step(self, action: Tensor) -> Step:
        """One step of all environments."""
        step = self._environments.step(action)
        return dataclasses.replace(step, reward=self._reward(step.next_observation))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environments, name)
