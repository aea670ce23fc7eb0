"""A task of your own for control: a corridor. Walk right to the end before the time is up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import rheostat
from rheostat.training.run import Run


class Corridor(gymnasium.Env):
    """Cells 0 to ``length``; action 1 goes right, 0 goes left; every step costs 0.1 and the end pays 1."""

    def __init__(self, length: int = 6, limit: int = 40) -> None:
        self.length, self.limit = length, limit
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.cell = self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell, self.time = 0, 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.cell = max(0, self.cell + (1 if action else -1))
        self.time += 1
        terminated = self.cell == self.length  # the episode ended: nothing comes after it
        truncated = self.time == self.limit and not terminated  # we stopped looking: it would have gone on
        return self.look(), 1.0 if terminated else -0.1, terminated, truncated, {}

    def look(self) -> np.ndarray:
        return np.array([self.cell / self.length], np.float32)

    # With these two a run continues exactly even if the environment were not deterministic; any plain data will do.
    def save_state(self) -> dict[str, int]:
        return {"cell": self.cell, "time": self.time}

    def load_state(self, state: dict[str, int]) -> None:
        self.cell, self.time = state["cell"], state["time"]


def main(directory: Path, steps: int = 8192) -> Run:
    settings = {"batch_steps": 512, "minibatches": 4, "learning_rate": 3e-3, "gamma": 0.95}
    return rheostat.train("ppo", Corridor, directory=directory, steps=steps, **settings)


if __name__ == "__main__":
    run = main(Path("runs/corridor"))
    print(run.summary["evaluation_return"], "of at most", 1 - 5 * 0.1)
    print(run.policy(np.array([0.5], np.float32)))  # 1: to the right
