"""An environment of Gymnasium that speaks: it shows a number, and the policy says the one below, down to 0."""

from __future__ import annotations

from typing import Any

import gymnasium


class Countdown(gymnasium.Env[str, str]):
    """A wrong number ends the episode; every right one earns 1."""

    observation_space = gymnasium.spaces.Text(4)
    action_space = gymnasium.spaces.Text(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.number = int(self.np_random.integers(2, 10))
        return f"{self.number}?", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        right = action.removeprefix("#") == str(self.number - 1)
        self.number -= right
        done = not right or self.number == 0
        return f"{self.number}?", float(right), done, False, {"is_success": right and done}


gymnasium.register("Countdown-v0", entry_point="my_talks:Countdown")
