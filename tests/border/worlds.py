"""Environments as users write them."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Line(gymnasium.Env):
    """A number is shown, the action should be that number; ``length`` steps."""

    def __init__(self, length: int = 10) -> None:
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.length = length

    def draw(self) -> float:
        return float(self.np_random.uniform(-1, 1))

    def extra(self) -> float:
        return 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t, self.x = 0, self.draw()
        return np.array([self.x], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        reward = -((float(action[0]) - self.x) ** 2) + self.extra()
        self.x = self.draw()
        return np.array([self.x], np.float32), reward, False, self.t == self.length, {}


class Noisy(Line):
    """Draws from the module ``random``: nobody can repeat it."""

    def draw(self) -> float:
        return random.uniform(-1, 1)


class Curriculum(Line):
    """Every 20 episodes a harder level, which no observation shows."""

    episodes = 0

    def reset(self, **options: Any) -> Any:
        self.episodes += 1
        return super().reset(**options)

    def extra(self) -> float:
        return -float(self.episodes // 20)


class Simulator:
    """Something with a handle that no one can look into."""

    def __init__(self) -> None:
        self.handle = iter([])  # no plain data
        self.resets = 0


class Held(Line):
    """Keeps a simulator over its whole life."""

    def __init__(self) -> None:
        super().__init__()
        self.simulator = Simulator()

    def reset(self, **options: Any) -> Any:
        self.simulator.resets += 1
        return super().reset(**options)


class Robot(Line):
    """Must not be repeated."""

    replayable = False
