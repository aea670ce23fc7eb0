"""Deterministic MDPs given by tables: as Gymnasium environments, and as a fast batch for studies with many seeds in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError


@dataclass(frozen=True, slots=True)
class TabularMDP:
    """A finite decision process with deterministic moves, ``S`` states and ``A`` actions."""

    next_state: Tensor  # int64 [S, A]
    reward: Tensor  # float32 [S, A]
    ends: Tensor  # bool [S, A]: the move terminates the episode
    start: Tensor  # float64 [S]: probabilities of the first state
    limit: int  # steps after which an episode is truncated

    @property
    def num_states(self) -> int:
        """S."""
        return self.next_state.shape[0]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.next_state.shape[1]

    def transition(self) -> Tensor:
        """Probabilities ``[S, A, S]`` of continuing in each state; the rows of terminating moves sum to 0."""
        return torch.nn.functional.one_hot(self.next_state, self.num_states).double() * ~self.ends[..., None]


class TabularEnvironment(gymnasium.Env):
    """A table as a Gymnasium environment: the observation is the index of the state. The limit is left to a TimeLimit wrapper."""

    def __init__(self, mdp: TabularMDP) -> None:
        self.mdp = mdp
        self.observation_space = gymnasium.spaces.Discrete(self.mdp.num_states)
        self.action_space = gymnasium.spaces.Discrete(self.mdp.num_actions)
        self._next_state = self.mdp.next_state.tolist()
        self._reward = self.mdp.reward.tolist()
        self._ends = self.mdp.ends.tolist()
        self._cumulative = (self.mdp.start.cumsum(0) / self.mdp.start.sum()).numpy()
        self.state = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """A first state, drawn from ``start``."""
        super().reset(seed=seed)
        self.state = int(np.searchsorted(self._cumulative, self.np_random.random(), side="right"))
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        state, action = self.state, int(action)
        self.state = self._next_state[state][action]
        return self.state, self._reward[state][action], self._ends[state][action], False, {}

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs; the generator is saved by the adapter."""
        return {"state": self.state}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`save_state` was called."""
        self.state = state["state"]


@dataclass(slots=True)
class TabularStep:
    """One step of ``E`` copies of a tabular MDP; every row is a transition."""

    state: Tensor  # int64 [E], before the step
    next_state: Tensor  # int64 [E], the true successor
    reward: Tensor  # float32 [E]
    terminated: Tensor  # bool [E]
    truncated: Tensor  # bool [E]


class TabularBatch:
    """``E`` copies of a table stepped by indexing; ended episodes start again within the same step.

    Args:
        mdp: the table.
        num_envs: number of copies E (seeds times environments, for example).
        generator: draws the first states.

    Attributes:
        state: int64 [E], the present states.
        elapsed: int64 [E], steps taken in the present episodes.
    """

    def __init__(self, mdp: TabularMDP, num_envs: int, generator: torch.Generator) -> None:
        if num_envs < 1:
            raise RheostatError(f"num_envs must be at least 1, not {num_envs}.")
        self.mdp = mdp
        self.num_envs = num_envs
        self._generator = generator
        self.state = self._first_states(num_envs)
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64)

    def _first_states(self, number: int) -> Tensor:
        return torch.multinomial(self.mdp.start, number, replacement=True, generator=self._generator)

    def step(self, action: Tensor) -> TabularStep:
        """Move every copy by ``action`` (int64 [E])."""
        state = self.state
        successor = self.mdp.next_state[state, action]
        terminated = self.mdp.ends[state, action]
        self.elapsed = self.elapsed + 1
        truncated = (self.elapsed >= self.mdp.limit) & ~terminated
        ended = terminated | truncated
        self.state = successor
        if ended.any():
            self.state = successor.clone()
            self.state[ended] = self._first_states(int(ended.sum()))
            self.elapsed[ended] = 0
        return TabularStep(state, successor, self.mdp.reward[state, action], terminated, truncated)

    def state_dict(self) -> dict[str, Tensor]:
        """The present states; the generator belongs to the caller."""
        return {"state": self.state.clone(), "elapsed": self.elapsed.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.state, self.elapsed = state["state"].clone(), state["elapsed"].clone()
