"""The wrapper that puts distractors behind the observation of a task; see :mod:`rheostat.tasks.control.distractors`."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Env, Wrapper
from gymnasium.spaces import Box

from rheostat.errors import RheostatError
from rheostat.tasks.control.distractors import LIMIT, DistractorOptions


class Distracted(Wrapper):
    """An environment with distractors behind its observation.

    Args:
        env: its observation is a vector of numbers.
        options: how many, and how they move.

    Raises:
        RheostatError: another observation.
    """

    def __init__(self, env: Env, options: DistractorOptions) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise RheostatError(f"Distractors stand behind a vector of numbers, and the observation of this task is {space}.")
        count, own, dtype = options.distractors, space.shape[0], np.promote_types(space.dtype, np.float32)
        limits = (np.concatenate([bound, np.full(count, sign * np.inf)]) for bound, sign in ((space.low, -1), (space.high, 1)))
        low, high = (limit.astype(dtype) for limit in limits)
        self.observation_space = Box(low, high, dtype=dtype.type)
        draw = np.random.default_rng(options.distractor_map)
        self.by_itself, by_task = draw.standard_normal((count, count)), draw.standard_normal((count, own))
        self.back = draw.standard_normal(count)
        if options.distractor_kind == "linear":
            self.by_itself /= np.abs(np.linalg.eigvals(self.by_itself)).max()
        self.by_task = by_task if options.distractor_correlated else np.zeros_like(by_task)
        self.kind, self.start = options.distractor_kind, options.distractor_scale
        self.chance = np.random.default_rng()
        self.state = np.zeros(count)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed also decides where the distractors begin."""
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self.chance = np.random.default_rng([seed, 1])
        scale = 1.0 if self.kind == "noise" else self.start
        self.state = scale * self.chance.standard_normal(len(self.state))
        return self.seen(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the task, and move the distractors."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.state = self.moved(np.asarray(observation, dtype=np.float64))
        return self.seen(observation), reward, terminated, truncated, info

    def moved(self, observation: np.ndarray) -> np.ndarray:
        """Where the distractors are next."""
        if self.kind == "noise":
            return self.chance.standard_normal(len(self.state))
        following = self.by_itself @ self.state + self.by_task @ observation
        return np.where(np.abs(following) > LIMIT, self.back, following) if self.kind == "switching" else following

    def seen(self, observation: Any) -> np.ndarray:
        """The task's observation with the distractors behind it."""
        return np.concatenate([observation, self.state]).astype(self.observation_space.dtype)
