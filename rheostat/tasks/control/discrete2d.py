"""Discrete2D-K: a point in the plane walks to a goal in one of K directions (PROPS' discrete task).

Known: K equally spaced headings, step 0.05, observation (position, goal) in [-1, 1]^4, reward -distance, the episode ends within 0.05 of
the goal or after 50 steps. Reconstructed by us: position and goal are drawn uniformly from the square at every reset, the position is
clipped to the square, and the distance is the one after the step.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError

STEP = 0.05
REACHED = 0.05
LIMIT = 50


def headings_of(number: int) -> np.ndarray:
    """Displacements ``[K, 2]`` of K equally spaced headings, the first one along the x axis."""
    if number < 2:
        raise RheostatError(f"Discrete2D needs at least 2 headings, not {number}.")
    angle = 2.0 * math.pi * np.arange(number) / number
    return STEP * np.stack([np.cos(angle), np.sin(angle)], axis=1)


class Discrete2D(gymnasium.Env):
    """One point. The limit of 50 steps is left to a TimeLimit wrapper."""

    def __init__(self, headings: int = 100) -> None:
        self._displacement = headings_of(headings)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(headings)
        self.position = np.zeros(2)
        self.goal = np.zeros(2)

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.position, self.goal]).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1.0, 1.0, 2)
        self.goal = self.np_random.uniform(-1.0, 1.0, 2)
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position = np.clip(self.position + self._displacement[int(action)], -1.0, 1.0)
        distance = float(np.linalg.norm(self.position - self.goal))
        return self._observation(), -distance, distance < REACHED, False, {}

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs; the generator is saved by the adapter."""
        return {"position": self.position, "goal": self.goal}

    def load_state(self, state: dict[str, Any]) -> None:
        self.position, self.goal = state["position"], state["goal"]


class Discrete2DBatch:
    """``E`` points stepped together in float64; ended episodes start again within the same step.

    Attributes:
        position, goal: float64 [E, 2].
        elapsed: int64 [E].
    """

    def __init__(self, num_envs: int, generator: torch.Generator, headings: int = 100) -> None:
        self._displacement = torch.from_numpy(headings_of(headings))
        self._generator = generator
        self.position = self._draw(num_envs)
        self.goal = self._draw(num_envs)
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64)

    def _draw(self, number: int) -> Tensor:
        return torch.rand((number, 2), generator=self._generator, dtype=torch.float64) * 2.0 - 1.0

    def observation(self) -> Tensor:
        """The policy's present observation, float32 [E, 4]."""
        return torch.cat([self.position, self.goal], dim=1).float()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Move every point by ``action`` (int64 [E]); returns the true next observation, reward, terminated and truncated."""
        self.position = (self.position + self._displacement[action]).clamp(-1.0, 1.0)
        distance = (self.position - self.goal).norm(dim=1)
        successor = self.observation()
        self.elapsed = self.elapsed + 1
        terminated = distance < REACHED
        truncated = (self.elapsed >= LIMIT) & ~terminated
        ended = terminated | truncated
        number = int(ended.sum())
        if number:
            self.goal = self.goal.clone()
            self.position[ended], self.goal[ended] = self._draw(number), self._draw(number)
            self.elapsed[ended] = 0
        return successor, -distance.float(), terminated, truncated

    def state_dict(self) -> dict[str, Tensor]:
        """The present points; the generator belongs to the caller."""
        return {"position": self.position.clone(), "goal": self.goal.clone(), "elapsed": self.elapsed.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.position, self.goal, self.elapsed = state["position"].clone(), state["goal"].clone(), state["elapsed"].clone()
