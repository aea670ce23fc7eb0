"""Recall: a cue is shown once and asked for ``delay`` steps later; it needs a memory and nothing else.

The observation is ``[cue, asked]``: the cue is -1 or 1 in the first step and 0 after it, ``asked`` is 1 in the last step and 0 before it.
The reward of the last step is 1 for the action that names the cue (0 for -1, 1 for 1), every other reward is 0.

The observation at the question is ``[0, 1]`` whatever the cue was, and both cues are equally likely. So a policy of the observation alone,
which answers 1 with some probability p, is right with probability p / 2 + (1 - p) / 2 = 1/2: every one of them has the expected return
1/2, and a policy that remembers reaches 1.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from rheostat.errors import RheostatError

CHANCE = 0.5
"""Expected return of every policy without a memory."""
BEST = 1.0


class Recall(gymnasium.Env):
    """See the module.

    Args:
        delay: steps between the cue and the question, at least 1; an episode has one more.

    Raises:
        RheostatError: a delay below 1.
    """

    def __init__(self, delay: int = 5) -> None:
        if delay < 1:
            raise RheostatError(f"The delay of Recall is {delay}: it must be at least 1, or there is nothing to remember.")
        self.delay = delay
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.cue, self.time = 0, 0

    def _observe(self) -> np.ndarray:
        return np.array([(2 * self.cue - 1) * (self.time == 0), self.time == self.delay], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        asked = self.time == self.delay
        self.time += not asked
        return self._observe(), float(asked and int(action) == self.cue), asked, False, {}

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs; the generator is saved by the adapter."""
        return {"cue": self.cue, "time": self.time}

    def load_state(self, state: dict[str, Any]) -> None:
        self.cue, self.time = state["cue"], state["time"]
