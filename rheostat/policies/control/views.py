"""Feature extractors for observations that are or contain pictures: every picture has a small convolutional network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rheostat.policies.control.pixels import Pixels

FEATURES = 64
"""Features of one picture among several."""
PIXEL_FEATURES = 512
"""Width of the layer above the convolutions where the observation is a single picture (Mnih et al. 2015)."""


def space_of_pixels(observation_space: Any) -> Any:
    """The space of vectors of pixels from 0 to 1, of that of images ``[C, H, W]``: one picture that fills them."""
    from gymnasium.spaces import Box

    found = Box(0.0, 1.0, (math.prod(observation_space.shape),), np.float32)
    found.pictures, found.features = ((0, tuple(observation_space.shape)),), PIXEL_FEATURES  # type: ignore[attr-defined]
    return found


class Views(nn.Module):
    """Encoded observations ``[N, n]`` whose space says where pictures are, to ``[N, m]``: features of every picture, then other numbers.

    Args:
        observation_space: of encoded vectors, with ``pictures``: first column and ``[C, H, W]`` of each, pixels from 0 to 1; and perhaps
            with ``features``, the number of features of each.
    """

    def __init__(self, observation_space: Any) -> None:
        super().__init__()
        self.places: tuple[tuple[int, tuple[int, int, int]], ...] = observation_space.pictures
        features = getattr(observation_space, "features", FEATURES)
        self.networks = nn.ModuleList(Pixels(shape, features, scale=1.0) for _, shape in self.places)
        other = torch.ones(observation_space.shape[0], dtype=torch.bool)
        for start, (channels, height, width) in self.places:
            other[start : start + channels * height * width] = False
        self.register_buffer("other", other.nonzero().flatten(), persistent=False)
        self.width = features * len(self.places) + int(other.sum())

    def forward(self, observation: Tensor) -> Tensor:
        """``[N, m]``."""
        parts = []
        for network, (start, shape) in zip(self.networks, self.places, strict=True):
            columns = observation[:, start : start + shape[0] * shape[1] * shape[2]]
            parts.append(network(columns.reshape(len(observation), *shape)))
        return torch.cat([*parts, observation.index_select(1, self.get_buffer("other"))], 1)


def picture_network(observation_space: Any, generator: torch.Generator | None) -> Pixels | Views | None:
    """The network of the pictures in an observation, as read: an image ``[C, H, W]``, or a vector that contains some; None without any.

    Args:
        observation_space: of encoded observations.
        generator: draws the initial weights.
    """
    image = len(observation_space.shape) == 3
    if not image and not getattr(observation_space, "pictures", ()):
        return None
    with torch.random.fork_rng(devices=[]):  # initialisers of convolutions only know the global generator: borrow it
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        return Pixels(observation_space.shape, PIXEL_FEATURES) if image else Views(observation_space)


class Front(nn.Module):
    """Observations as the features that a perceptron reads; columns beyond the observation's own pass through.

    Args:
        network: of the pictures, see :func:`picture_network`.
        columns: of an observation that is a vector; None for images.
    """

    def __init__(self, network: Pixels | Views, columns: int | None) -> None:
        super().__init__()
        self.network, self.columns, self.width = network, columns, network.width

    @classmethod
    def of(cls, observation_space: Any, generator: torch.Generator | None) -> Front | None:
        """The feature extractor of these observations; None where they are vectors without pictures."""
        network = picture_network(observation_space, generator)
        return None if network is None else cls(network, None if len(observation_space.shape) == 3 else observation_space.shape[0])

    def forward(self, observation: Tensor) -> Tensor:
        """``[N, ...]`` to ``[N, width]``, or more columns where there were more."""
        if self.columns is None:
            return self.network(observation)
        return torch.cat([self.network(observation[:, : self.columns]), observation[:, self.columns :]], -1)
