"""Deterministic gridworlds of the PROPS experiments (arXiv 2311.08290 and its repositories).

Known of the 8x8 grid: one-hot states, the goal in the last corner with reward +1, -1 for bumping into a wall, -0.1 otherwise, 30 steps.
Known of the 5x5 grid: deterministic, 50 steps. Reconstructed by us: episodes start in the first corner and end at the goal; the 5x5 grid
uses the rewards of the 8x8 one (its study measures sampling error, which rewards do not enter). With logits N(0, 0.5^2) our on-policy
sampling error after 128/256/512/1024 steps is .256/.148/.075/.036 (200 seeds); six seeds of the reference implementation gave
.283/.159/.073/.036, which agrees within their noise.
"""

from __future__ import annotations

import torch

from rheostat.errors import RheostatError
from rheostat.tasks.control.tabular import TabularEnvironment, TabularMDP

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right


def grid_world(
    size: int = 8, *, limit: int = 30, goal_reward: float = 1.0, bump_reward: float = -1.0, step_reward: float = -0.1
) -> TabularMDP:
    """A ``size x size`` grid; state ``row * size + column``; actions up, down, left, right; start (0, 0), goal (size - 1, size - 1).

    A bump leaves the state as it is. Reaching the goal terminates the episode.
    """
    if size < 2:
        raise RheostatError(f"A gridworld needs at least 2 x 2 cells, not {size} x {size}.")
    cells = torch.arange(size * size)
    rows, columns = cells // size, cells % size
    move = torch.tensor(MOVES)
    to_row, to_column = rows[:, None] + move[:, 0], columns[:, None] + move[:, 1]
    bump = (to_row < 0) | (to_row >= size) | (to_column < 0) | (to_column >= size)
    next_state = torch.where(bump, cells[:, None], to_row * size + to_column)
    goal = size * size - 1
    ends = (next_state == goal) & ~bump
    reward = torch.full(next_state.shape, step_reward)
    reward[bump] = bump_reward
    reward[ends] = goal_reward
    start = torch.zeros(size * size, dtype=torch.float64)
    start[0] = 1.0
    return TabularMDP(next_state, reward, ends, start, limit)


class SamplingErrorGrid(TabularEnvironment):
    """The 5x5 grid on which sampling error under a fixed tabular softmax policy is measured exactly."""

    def __init__(self) -> None:
        super().__init__(grid_world(5, limit=50))


class ToyGrid(TabularEnvironment):
    """The 8x8 grid of the toy experiments."""

    def __init__(self) -> None:
        super().__init__(grid_world(8, limit=30))
