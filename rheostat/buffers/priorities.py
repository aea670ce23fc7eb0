"""Drawing in proportion to priorities, for whole batches at once."""

from __future__ import annotations

import torch
from torch import Tensor

FAN = 32
"""Children of a node: few levels, and a level of a batch is one small matrix."""


class SumTree:
    """Priorities of ``size`` places and their partial sums; changing or finding ``n`` of them costs ``O(n log size)``.

    Every node is the running sum of its children from left to right, so the sums depend on the present priorities only, not on their
    history: a tree built from saved priorities draws bit for bit what the old one would have drawn.
    """

    BYTES = 8 * FAN / (FAN - 1)
    """Memory of a place."""

    def __init__(self, size: int) -> None:
        self.levels: list[Tensor] = []  # [nodes, FAN] float64; the first holds the priorities, the last has one row
        rows = size
        while not self.levels or rows > 1:
            rows = -(-rows // FAN)
            self.levels.append(torch.zeros(rows, FAN, dtype=torch.float64))
        self.leaves = self.levels[0].view(-1)

    def set(self, index: Tensor, priority: Tensor) -> None:
        """Give places ``[n]`` (each at most once) priorities ``[n]``, at least 0."""
        self.leaves[index] = priority.double()
        node = index
        for lower, upper in zip(self.levels, self.levels[1:], strict=False):
            node = node // FAN
            upper.view(-1)[node] = lower[node].cumsum(1)[:, -1]

    def total(self) -> float:
        """Sum of all priorities."""
        return self.levels[-1][0].cumsum(0)[-1].item()

    def find(self, mass: Tensor) -> Tensor:
        """The places ``[n]`` at which the running sum of priorities first exceeds ``mass`` ``[n]``, which lies in [0, total).

        A place without priority is never found.
        """
        node = torch.zeros(len(mass), dtype=torch.int64)
        mass = mass.double().unsqueeze(1)
        below_one = 1 - torch.finfo(torch.float64).eps
        for level in reversed(self.levels):
            children = level.index_select(0, node)
            running = children.cumsum(1)
            # The remaining mass is below the sum of the node; only rounding makes them equal.
            mass = torch.minimum(mass, running[:, -1:] * below_one)
            child = torch.searchsorted(running, mass, right=True)
            mass = (mass - running.gather(1, child) + children.gather(1, child)).clamp_min_(0)
            node = node * FAN + child.squeeze(1)
        return node
