"""What the VaGraM study computes beside runs: a model that is too small for its world, fitted by four losses to one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.objectives.value_aware import value_difference_error, value_gradient_error
from rheostat.policies.control.critics import Stack
from rheostat.policies.parameters import OptimizedNetwork
from rheostat.streams import derive_seed

DISTRACTORS = 10
DISTRACTION = 10.0**0.5
"""Deviation of a distractor; that of the dimension that matters is 1."""
PERSISTENCE, NOISE = 0.9, 0.1
BOTTLENECK = 2
LEARNING_RATE = 0.02


def world(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """States ``[rows, 11]`` and their successors: every dimension by itself, 0.9 of it and noise of a tenth of its deviation."""
    deviation = torch.tensor([1.0, *[DISTRACTION] * DISTRACTORS])
    state = deviation * torch.randn(rows, 1 + DISTRACTORS, generator=generator)
    return state, PERSISTENCE * state + NOISE * deviation * torch.randn(state.shape, generator=generator)


def value(state: Tensor) -> Tensor:
    """``V(s) = s_0 (s_0 + 2)``, ``[1, rows]``: it is the same at a state and at its mirror image around -1."""
    return (state[..., 0] * (state[..., 0] + 2)).unsqueeze(0)


def gradient(state: Tensor) -> Tensor:
    """``dV/ds``, ``[1, rows, 11]``."""
    found = torch.zeros_like(state)
    found[..., 0] = 2 * state[..., 0] + 2
    return found.unsqueeze(0)


def loss_of(arm: str, predicted: Tensor, following: Tensor) -> Tensor:
    """The loss of one arm, a scalar; there is no reward."""
    error = predicted - following
    if arm == "MSE":
        return error.square().mean()
    nothing = torch.zeros(len(error))
    if arm == "IterVAML":
        return value_difference_error(value(predicted), value(following), nothing).mean()
    with_reward = torch.cat([error, nothing.unsqueeze(-1)], -1)
    return value_gradient_error(with_reward, gradient(following), form="bounded" if arm == "VaGraM" else "unbounded").mean()


def fit(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: a linear model through two numbers, fitted by full batches of Adam, and judged on fresh rows.

    Returns:
        ``relevant``, the mean squared error of the dimension that matters; ``value``, that of its value; ``others``, of a distractor;
        ``loss``, of its own loss on the fresh rows.
    """
    arm, seed = arguments["arm"], arguments["seed"]
    torch.set_num_threads(1)
    draws = {name: torch.Generator().manual_seed(derive_seed(seed, name)) for name in ("rows", "fresh rows", "weights")}
    state, following = world(arguments["rows"], draws["rows"])
    network = Stack(1, state.shape[1], (BOTTLENECK,), state.shape[1], activation=lambda x: x, generator=draws["weights"])
    learner = OptimizedNetwork(network, LEARNING_RATE)
    for _ in range(arguments["steps"]):
        learner.step(loss_of(arm, network(state)[0], following))
    state, following = world(arguments["rows"], draws["fresh rows"])
    with torch.no_grad():
        predicted = network(state)[0]
        square = (predicted - following).square().mean(0)
        of_value = (value(predicted) - value(following)).square().mean()
        own = loss_of(arm, predicted, following)
    return {"relevant": float(square[0]), "value": float(of_value), "others": float(square[1:].mean()), "loss": float(own)}
