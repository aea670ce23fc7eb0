"""Environments with two equally good answers, where a policy with a single mode must choose one of them or stand in between.

    pay(x) = exp(-|x - c|^2 / (2 * 0.3^2)),      c the nearer one of (0.6, 0.6) and (-0.6, -0.6)

| environment | a step |
|---|---|
| TwoBumps | pays for the action; no observation; one step |
| JumpingBump | the same, but only the bump on the side of the context's sign pays; the context is uniform in [-1, 1] |
| TwoGoals | a point mass under thrust in a box, from near the middle; pays for its position; never ends by itself |

Reconstructed by us from the claim they serve (PMOE: two bumps at +-(0.6, 0.6), a peak that jumps with the context, a point mass with two
goals); width, thrust and friction are this library's. At (0, 0), in the middle, both pay 0.018.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np

PEAK, WIDTH = 0.6, 0.3
HALF_HEIGHT = WIDTH * math.sqrt(2 * math.log(2))
"""Distance from a peak at which half of it is paid."""
FRICTION, THRUST, START = 0.8, 0.05, 0.1
"""Share of the velocity that is kept per step, velocity gained by full thrust, and half the width of the square of first positions."""
LIMIT = 30


def side(x: np.ndarray) -> np.ndarray:
    """The peak nearer to points ``[..., 2]``: 1.0 for (0.6, 0.6), -1.0 for the other, ``[...]``."""
    return np.where(x.sum(-1) >= 0, 1.0, -1.0)


def distance_to_peak(x: np.ndarray, which: np.ndarray | float) -> np.ndarray:
    """Distance of points ``[..., 2]`` from the peak on a side, ``[...]``."""
    return np.linalg.norm(x - PEAK * np.asarray(which)[..., None], axis=-1)


def pay(x: np.ndarray, which: np.ndarray | float) -> np.ndarray:
    """Reward of points ``[..., 2]`` for the peak on a side, ``[...]``, at most 1."""
    return np.exp(-0.5 * (distance_to_peak(x, which) / WIDTH) ** 2)


class TwoBumps(gymnasium.Env):
    """A bandit; the observation is always 0."""

    contextual = False

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.context = 0.0

    def _observation(self) -> np.ndarray:
        return np.array([self.context], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if self.contextual:
            self.context = float(self.np_random.uniform(-1.0, 1.0))
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, dtype=np.float64)
        which = (1.0 if self.context >= 0 else -1.0) if self.contextual else side(action)
        return self._observation(), float(pay(action, which)), True, False, {}

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs; the generator is saved by the adapter."""
        return {"context": self.context}

    def load_state(self, state: dict[str, Any]) -> None:
        self.context = state["context"]


class JumpingBump(TwoBumps):
    """A contextual bandit; the observation is the context."""

    contextual = True


class TwoGoals(gymnasium.Env):
    """A point mass; the observation is position and velocity, ``[4]``. The limit of 30 steps is left to a TimeLimit wrapper."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.position = np.zeros(2)
        self.velocity = np.zeros(2)

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.position, self.velocity]).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-START, START, 2)
        self.velocity = np.zeros(2)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.velocity = FRICTION * self.velocity + THRUST * np.asarray(action, dtype=np.float64)
        moved = self.position + self.velocity
        self.position = np.clip(moved, -1.0, 1.0)
        self.velocity = np.where(moved == self.position, self.velocity, 0.0)  # walls stop it
        return self._observation(), float(pay(self.position, side(self.position))), False, False, {}

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs; the generator is saved by the adapter."""
        return {"position": self.position, "velocity": self.velocity}

    def load_state(self, state: dict[str, Any]) -> None:
        self.position, self.velocity = state["position"], state["velocity"]
