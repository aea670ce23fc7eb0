"""Vectors that hold pictures among their numbers: every picture has a small convolutional network, the numbers pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rheostat.policies.control.pixels import Pixels

FEATURES = 64
"""Numbers that stand for one picture."""


class Views(nn.Module):
    """Encoded observations ``[N, n]`` whose space says where pictures are, to ``[N, m]``: features of every picture, then other numbers.

    Args:
        observation_space: of encoded vectors, with ``pictures``: first column and ``[C, H, W]`` of each, pixels from 0 to 1.
    """

    def __init__(self, observation_space: Any) -> None:
        super().__init__()
        self.places: tuple[tuple[int, tuple[int, int, int]], ...] = observation_space.pictures
        self.networks = nn.ModuleList(Pixels(shape, FEATURES, scale=1.0) for _, shape in self.places)
        other = torch.ones(observation_space.shape[0], dtype=torch.bool)
        for start, (channels, height, width) in self.places:
            other[start : start + channels * height * width] = False
        self.register_buffer("other", other.nonzero().flatten(), persistent=False)
        self.width = FEATURES * len(self.places) + int(other.sum())

    def forward(self, observation: Tensor) -> Tensor:
        """``[N, m]``."""
        parts = []
        for network, (start, shape) in zip(self.networks, self.places, strict=True):
            columns = observation[:, start : start + shape[0] * shape[1] * shape[2]]
            parts.append(network(columns.reshape(len(observation), *shape)))
        return torch.cat([*parts, observation.index_select(1, self.get_buffer("other"))], 1)
