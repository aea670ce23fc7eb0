"""Random processes, classes and distributions for the tests of the laboratory, each from one seed."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat import tabular as lab


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distribution(draw: torch.Generator, *shape: int) -> Tensor:
    """Positive probabilities over the last axis."""
    x = torch.empty(shape, dtype=torch.float64).exponential_(generator=draw) + 1e-3
    return x / x.sum(-1, keepdim=True)


def layered(draw: torch.Generator, horizon: int = 3, states: int = 3, actions: int = 2) -> lab.LayeredMDP:
    reward = torch.rand(horizon, states, actions, generator=draw, dtype=torch.float64)
    return lab.LayeredMDP(distribution(draw, horizon, states, actions, states), reward, distribution(draw, states))


def deterministic(draw: torch.Generator, horizon: int, states: int, actions: int) -> lab.LayeredMDP:
    """A deterministic process with one first state."""
    reward = torch.rand(horizon, states, actions, generator=draw, dtype=torch.float64)
    move = torch.randint(states, (horizon, states, actions), generator=draw)
    first = torch.randint(states, (1,), generator=draw)[0]
    return lab.LayeredMDP(lab.one_hot(move, states), reward, lab.one_hot(first, states))


def some_policies(draw: torch.Generator, number: int, horizon: int = 3, states: int = 3, actions: int = 2) -> Tensor:
    return torch.randint(actions, (number, horizon, states), generator=draw)
