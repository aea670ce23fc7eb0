"""The policy of a fleet: a score for every pair of a vehicle and an order, and from it each vehicle's shares of the open orders.

    p[i, j] = exp f(vehicle_i, order_j) / sum over open orders k of exp f(vehicle_i, order_k) + 1e-8

The small number keeps every share positive, so that a free vehicle takes any order rather than none; rows sum to slightly more than 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

FLOOR = 1e-8
"""Added to every share."""


class Dispatcher(nn.Module):
    """A multilayer perceptron on a vehicle's numbers beside an order's.

    Args:
        vehicle_size: numbers of a vehicle, F.
        order_size: numbers of an order, G.
        hidden: units of the hidden layers, LeakyReLU (slope 0.01) between them.
        seed: of the weights, drawn as PyTorch's linear layers draw them.
    """

    def __init__(self, vehicle_size: int, order_size: int, hidden: Sequence[int], seed: int) -> None:
        super().__init__()
        self.vehicle_size = vehicle_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pair, *rest = layers([vehicle_size + order_size, *hidden, 1])
        self.rest = nn.ModuleList(rest)

    def forward(self, vehicles: Tensor, orders: Tensor) -> Tensor:
        """Scores.

        Args:
            vehicles: ``[B, N, F]``.
            orders: ``[B, O, G]``.

        Returns:
            ``[B, N, O]``.
        """
        weight = self.pair.weight  # of both beside each other: the two halves are added
        own = nn.functional.linear(vehicles, weight[:, : self.vehicle_size], self.pair.bias)
        seen = own.unsqueeze(2) + nn.functional.linear(orders, weight[:, self.vehicle_size :]).unsqueeze(1)
        for layer in self.rest:
            seen = layer(nn.functional.leaky_relu(seen, 0.01))
        return seen.squeeze(-1)


class VehicleValue(nn.Module):
    """A critic that sees a vehicle alone; arguments as in :class:`Dispatcher`."""

    def __init__(self, vehicle_size: int, hidden: Sequence[int], seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(layers([vehicle_size, *hidden, 1]))

    def forward(self, vehicles: Tensor) -> Tensor:
        """Values ``[n]`` of vehicles ``[n, F]``."""
        seen = self.layers[0](vehicles)
        for layer in self.layers[1:]:
            seen = layer(nn.functional.leaky_relu(seen, 0.01))
        found: Tensor = seen.squeeze(-1)
        return found


def layers(sizes: Sequence[int]) -> list[nn.Linear]:
    """Linear layers between consecutive sizes."""
    return [nn.Linear(before, after) for before, after in itertools.pairwise(sizes)]


def shares(scores: Tensor, is_open: Tensor) -> Tensor:
    """Shares of the open orders.

    Args:
        scores: ``[..., O]``.
        is_open: bool, broadcast to it; at least one order of each row.

    Returns:
        ``[..., O]``, 0 for orders that are not open.
    """
    masked = scores.masked_fill(~is_open, float("-inf"))
    return (masked.softmax(-1) + FLOOR).masked_fill(~is_open, 0.0)
