"""Small Gymnasium environments for the tests of the adapter."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple


class Counting(gymnasium.Env):
    """Counts its steps; ends by itself after a random number of them (terminated if even, truncated if odd). The reward is the count."""

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.episode = 0
        self.episode += 1
        self.count, self.length = 0, int(self.np_random.integers(1, 6))
        return self._observe(), {}

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.count], dtype=np.float64)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        over = self.count == self.length
        return self._observe(), float(self.count) + float(action[0]), over and self.length % 2 == 0, over and self.length % 2 == 1, {}


class SavableCounting(Counting):
    """The same, able to save itself."""

    def save_state(self) -> dict[str, Any]:
        return {"episode": self.episode, "count": self.count, "length": self.length}

    def load_state(self, state: dict[str, Any]) -> None:
        self.episode, self.count, self.length = state["episode"], state["count"], state["length"]


class Spaces(gymnasium.Env):
    """Any spaces; observations and actions are sampled or recorded, never interpreted."""

    def __init__(self, observation: gymnasium.Space, action: gymnasium.Space | None = None) -> None:
        self.observation_space = observation
        self.action_space = action or Discrete(2)
        self.seen_action: Any = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.given = self.observation_space.sample()
        return self.given, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.seen_action = np.array(action)
        self.given = self.observation_space.sample()
        return self.given, 0.0, False, False, {}


class Faulty(gymnasium.Env):
    """Goes wrong in a chosen way at its third step."""

    def __init__(self, fault: str = "none") -> None:
        self.observation_space = Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = Discrete(2)
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(3, dtype=np.float32), {}

    def step(self, action: int) -> Any:
        self.count += 1
        observation: Any = np.zeros(3, dtype=np.float32)
        reward: Any = 0.0
        if self.count == 3:
            match self.fault:
                case "nan observation":
                    observation[1] = np.nan
                case "infinite reward":
                    reward = np.inf
                case "shape":
                    observation = np.zeros(4, dtype=np.float32)
                case "dtype":
                    observation = np.array(["a", "b", "c"])
                case "no reward":
                    reward = None
                case "old api":
                    return observation, reward, False, {}
                case "own bug":
                    raise ValueError("a bug of the user's")
        return observation, reward, False, False, {}


class Clock(gymnasium.vector.VectorEnv):
    """A batched world of its own: counts to 3, resets in the same step, reports final observations as one array or as one per entry."""

    def __init__(self, num_envs: int, *, as_dict: bool = False, report: bool = True) -> None:
        self.num_envs = num_envs
        self.as_dict, self.report = as_dict, report
        hand = Box(0.0, 10.0, (1,), np.float32)
        self.single_observation_space = Dict({"hand": hand, "start": hand}) if as_dict else Box(0.0, 10.0, (2,), np.float32)
        self.single_action_space = Discrete(2)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}

    def _observe(self) -> Any:
        if self.as_dict:
            return {"hand": self.hand[:, None].copy(), "start": self.start[:, None].copy()}
        return np.stack([self.hand, self.start], axis=1)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.start = self.np_random.random(self.num_envs).astype(np.float32)
        self.hand = np.arange(self.num_envs, dtype=np.float32) % 3
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict]:
        self.hand = self.hand + 1
        over = self.hand >= 3
        info = {"final_obs": self._observe()} if self.report and over.any() else {}
        self.hand[over] = 0
        self.start[over] = self.np_random.random(int(over.sum()))
        return self._observe(), np.ones(self.num_envs), over, np.zeros(self.num_envs, dtype=bool), info

    def save_state(self) -> dict[str, Any]:
        return {"hand": self.hand, "start": self.start}

    def load_state(self, state: dict[str, Any]) -> None:
        self.hand, self.start = state["hand"], state["start"]


__all__ = [
    "Box",
    "Clock",
    "Counting",
    "Dict",
    "Discrete",
    "Faulty",
    "MultiBinary",
    "MultiDiscrete",
    "SavableCounting",
    "Spaces",
    "Text",
    "Tuple",
]
