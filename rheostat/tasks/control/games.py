"""Small games of two players whose best play is known, in PettingZoo's parallel interface (the package is not needed for them).

| game | payoffs (row, column) | known solution |
|---|---|---|
| Dominance | the prisoner's dilemma: 3, 3 / 0, 5 / 5, 0 / 1, 1 | action 1 is better whatever the other does, so both end with 1 |
| Coordination | 2, 2 on (0, 0), 1, 1 on (1, 1), else 0, 0 | the two diagonal cells are equilibria, and (0, 0) is the best for both |

Independent learners find the only equilibrium of Dominance, and from even odds the better one of Coordination, where action 0 pays 1 on
average and action 1 pays 1/2. In a zero-sum game with a mixed equilibrium they cycle, so there is none here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import gymnasium
import numpy as np

Payoffs = Sequence[Sequence[tuple[float, float]]]


class Game:
    """A matrix game of two players, played for some rounds; both observe the share of it that is over, ``[1]`` from 0 to 1.

    Args:
        rounds: of an episode, at least 1.
    """

    payoffs: ClassVar[Payoffs]
    """Payoffs of the row and the column player, by the row's and the column's action."""
    metadata: ClassVar[dict[str, Any]] = {"name": "game", "render_modes": []}
    possible_agents: ClassVar[list[str]] = ["row", "column"]

    def __init__(self, rounds: int = 1) -> None:
        self.rounds, self.round = rounds, 0
        self.agents: list[str] = []

    @cache  # noqa: B019  one space per agent, as PettingZoo asks; games live as long as their run
    def observation_space(self, agent: str) -> gymnasium.Space:
        """Space of either player."""
        return gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)

    @cache  # noqa: B019
    def action_space(self, agent: str) -> gymnasium.Space:
        """Space of either player."""
        return gymnasium.spaces.Discrete(len(self.payoffs))

    def _seen(self) -> dict[str, np.ndarray]:
        return {agent: np.array([self.round / self.rounds], np.float32) for agent in self.possible_agents}

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first round."""
        self.agents, self.round = list(self.possible_agents), 0
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """One round."""
        pay = self.payoffs[int(actions["row"])][int(actions["column"])]
        self.round += 1
        over = self.round == self.rounds
        players, self.agents = self.agents, [] if over else self.agents
        rewards = dict(zip(self.possible_agents, pay, strict=True))
        return self._seen(), rewards, dict.fromkeys(players, over), dict.fromkeys(players, False), {agent: {} for agent in players}

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs."""
        return {"round": self.round, "agents": list(self.agents)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load saved values."""
        self.round, self.agents = state["round"], list(state["agents"])


class Dominance(Game):
    """Action 1 dominates for both players."""

    payoffs: ClassVar[Payoffs] = [[(3.0, 3.0), (0.0, 5.0)], [(5.0, 0.0), (1.0, 1.0)]]


class Coordination(Game):
    """Both are paid where they agree, and most where they agree on action 0."""

    payoffs: ClassVar[Payoffs] = [[(2.0, 2.0), (0.0, 0.0)], [(0.0, 0.0), (1.0, 1.0)]]
