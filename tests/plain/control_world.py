"""A small world for the plain implementations: every step pays otherwise, episodes end by chance or are cut, bounds are not symmetric."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

LIMIT = 6
"""Steps after which an episode is cut."""


class World(gymnasium.Env[Any, Any]):
    """Three numbers drawn anew in every step, a sixth of the steps ends the world, and the reward depends on everything."""

    def __init__(self, action_space: Any) -> None:
        self.observation_space, self.action_space = SEEN, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.seen = 0, self._draw()
        return self.seen, {}

    def _draw(self) -> Any:
        return (self.np_random.normal(size=3) * [1.0, 2.0, 0.5] + [0.0, 1.0, -1.0]).astype(np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(self.seen[0] - 0.5 * self.seen[2] + np.sum(np.asarray(action) * [0.7, -0.3][: np.size(action)]))
        self.time, self.seen = self.time + 1, self._draw()
        ended = bool(self.np_random.uniform() < 1 / 6)
        return self.seen, reward, ended, self.time == LIMIT and not ended, {}


SEEN = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS: dict[str, Any] = {
    "Continuous": gymnasium.spaces.Box(np.array([-1.0, -2.0], np.float32), np.array([1.0, 4.0], np.float32)),
    "Discrete": gymnasium.spaces.Discrete(3),
    "Choices": gymnasium.spaces.MultiDiscrete([3, 2]),
}
"""Two dimensions of different width around different centres; a choice among three; two choices at once."""

for kind, space in ACTIONS.items():
    gymnasium.register(f"plain/{kind}-v0", entry_point=f"{__name__}:World", kwargs={"action_space": space})

CONTINUOUS, DISCRETE, CHOICES = (f"{__name__}:plain/{kind}-v0" for kind in ACTIONS)
"""Their names as tasks."""
