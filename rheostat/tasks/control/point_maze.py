"""A point in a square of four rooms, for learning without rewards: every place is a goal, and walls make near places far.

    x' = x + 0.1 a,   a in [-1, 1]^2;   a move that would cross a wall does not happen along the axis that crosses it

The square is [-1, 1]^2 with walls along both axes; each wall has a door 0.3 wide in the middle of each half. Episodes begin anywhere and
are cut after ``horizon`` steps; nothing ends them. Reward 1 within 0.2 of ``goal``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rheostat.errors import RheostatError
from rheostat.options import whole

STEP, DOOR, REACHED = 0.1, 0.15, 0.2
"""Longest move along an axis, half the width of a door, and how near to its goal a point earns the reward."""
DOORS = (-0.5, 0.5)
"""Middles of the doors of each wall."""
LARGEST_NOISE = 64
Points = NDArray[np.float64]


def through_a_door(place: Points) -> NDArray[np.bool_]:
    """Whether a coordinate along a wall is that of a door."""
    return np.any([np.abs(place - middle) < DOOR for middle in DOORS], axis=0)


def moved(position: Points, action: Points) -> Points:
    """Where points ``[E, 2]`` are after unit actions ``[E, 2]``; first along x, then along y."""
    found = position.copy()
    for axis in (0, 1):
        wanted = np.clip(found[:, axis] + STEP * action[:, axis], -1.0, 1.0)
        crosses = (wanted > 0) != (found[:, axis] > 0)
        allowed = ~crosses | through_a_door(found[:, 1 - axis])
        found[:, axis] = np.where(allowed, wanted, found[:, axis])
    return found


class PointMaze(VectorEnv):
    """Many points at once; an ended episode begins again within the same step, and ``info`` holds ``final_obs``.

    Args:
        num_envs: E.
        horizon: steps after which an episode is truncated.
        goal: where the reward is, two numbers.
        noise: numbers beside the position in an observation that are uniform in every step, and mean nothing.

    Raises:
        RheostatError: a horizon, goal or number that makes no world.
    """

    KEPT: ClassVar[tuple[str, ...]] = ("_seed", "_episodes", "_elapsed", "_steps", "position")

    def __init__(self, num_envs: int = 1, *, horizon: int = 50, goal: Sequence[float] = (0.7, 0.7), noise: int = 0) -> None:
        self.horizon = whole("horizon", horizon, at_least=1)
        self.noise = whole("noise", noise, at_least=0, at_most=LARGEST_NOISE)
        try:
            self.goal = np.asarray(goal, dtype=np.float64)
        except (TypeError, ValueError):
            self.goal = np.zeros(0)
        if self.goal.shape != (2,) or not (np.abs(self.goal) <= 1).all():
            raise RheostatError(f"goal is {goal!r}: it must be two numbers between -1 and 1.")
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2 + self.noise,), np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._seed, self._episodes = 0, np.zeros(num_envs, dtype=np.int64)
        self._elapsed, self.position = np.zeros(num_envs, dtype=np.int64), np.zeros((num_envs, 2))
        self._steps = 0

    def _begin(self, rows: NDArray[np.bool_]) -> None:
        """Place points anywhere; where depends on the seed, the environment and the number of its episode."""
        for row in np.flatnonzero(rows):
            self.position[row] = np.random.default_rng([self._seed + int(row), int(self._episodes[row])]).uniform(-1.0, 1.0, 2)
        self._episodes = self._episodes + rows
        self._elapsed = np.where(rows, 0, self._elapsed)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode in every environment."""
        if seed is not None:
            self._seed, self._episodes = int(seed), np.zeros(self.num_envs, dtype=np.int64)
            self._steps = 0
        self._begin(np.ones(self.num_envs, dtype=bool))
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[NDArray[np.float32], Points, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One step of every environment."""
        self.position = moved(self.position, np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0))
        self._elapsed, self._steps = self._elapsed + 1, self._steps + 1
        reward = (np.linalg.norm(self.position - self.goal, axis=1) <= REACHED).astype(np.float64)
        cut = self._elapsed >= self.horizon
        successor = self._observe()
        self._begin(cut)
        following = self._observe() if cut.any() else successor
        return following, reward, np.zeros_like(cut), cut, {"final_obs": successor}

    def _observe(self) -> NDArray[np.float32]:
        if not self.noise:
            return self.position.astype(np.float32)
        noise = np.random.default_rng([self._seed, self._steps]).uniform(-1.0, 1.0, (self.num_envs, self.noise))
        return np.concatenate([self.position, noise], 1).astype(np.float32)

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs."""
        return copy.deepcopy({name: getattr(self, name) for name in self.KEPT})

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was saved."""
        for name in self.KEPT:
            setattr(self, name, state[name])
