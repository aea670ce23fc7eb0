"""Small environments of several agents: what they paid is written down, agents leave early, and spaces differ."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

ACTIONS = {
    "scout": gymnasium.spaces.Discrete(2),
    "digger": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
    "porter": gymnasium.spaces.Discrete(2),
}
SEEN = {
    "scout": gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32),
    "digger": gymnasium.spaces.Dict({"depth": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32), "tool": gymnasium.spaces.Discrete(3)}),
    "porter": gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32),
}


class Quarry:
    """Three agents of two kinds. The scout's world ends after one to three steps, the others are cut after five; rewards are random.

    Attributes:
        paid: of every episode that is over, what each agent got, in order of time: shared by all objects.
    """

    possible_agents = ("scout", "digger", "porter")
    paid: list[dict[str, float]]

    def __init__(self, book: list[dict[str, float]] | None = None) -> None:
        self.paid = [] if book is None else book
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gymnasium.Space:
        return SEEN[agent]

    def action_space(self, agent: str) -> gymnasium.Space:
        return ACTIONS[agent]

    def _seen(self) -> dict[str, Any]:
        draw = self.chance.uniform(-1, 1, (3, 3)).astype(np.float32)
        found: dict[str, Any] = {"scout": draw[0], "porter": draw[1], "digger": {"depth": draw[2, :2], "tool": self.time % 3}}
        return {agent: found[agent] for agent in self.agents}

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.chance, self.time, self.agents = np.random.default_rng(seed), 0, list(self.possible_agents)
        self.last, self.got = int(self.chance.integers(1, 4)), dict.fromkeys(self.agents, 0.0)
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        assert set(actions) == set(self.agents), "only those who are in may act"
        assert all(ACTIONS[agent].contains(action) for agent, action in actions.items())
        self.time += 1
        acted = list(self.agents)
        pay = {agent: float(np.float32(self.chance.uniform())) + float(np.sum(actions[agent])) for agent in acted}
        for agent, reward in pay.items():
            self.got[agent] += reward
        end = {agent: agent == "scout" and self.time == self.last for agent in acted}
        cut = dict.fromkeys(acted, self.time == 5)
        seen = self._seen()
        self.agents = [agent for agent in acted if not (end[agent] or cut[agent])]
        if not self.agents:
            self.paid.append(self.got)
        return seen, pay, end, cut, {agent: {} for agent in acted}
