"""Convolutions for images, divided by 255 (Huang et al. 2022, details 21 and 22)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

PIXEL_RANGE = 255.0
"""What pixels are divided by."""


def layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A linear layer with orthogonal weights of the given gain and zero bias."""
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Pixels(nn.Module):
    """A small convolutional network for images ``[N, C, H, W] -> [N, features]``; kernels shrink to fit images below 36 pixels.

    Args:
        shape: ``[C, H, W]``.
        features: width of the output.
        scale: what pixels are divided by.
    """

    def __init__(self, shape: tuple[int, ...], features: int = 256, scale: float = PIXEL_RANGE) -> None:
        super().__init__()
        self.scale, self.width = scale, features
        channels, height, width = shape
        if min(height, width) >= 36:
            plan = [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
        else:
            plan = [(32, 3, 1), (64, min(3, height, width), 2 if min(height, width) > 12 else 1)]
        modules: list[nn.Module] = []
        for outputs, kernel, stride in plan:
            convolution = nn.Conv2d(channels, outputs, min(kernel, height, width), stride)
            nn.init.orthogonal_(convolution.weight, math.sqrt(2))
            nn.init.zeros_(cast(Tensor, convolution.bias))
            modules += [convolution, nn.ReLU()]
            channels = outputs
        self.convolutions = nn.Sequential(*modules, nn.Flatten())
        with torch.no_grad():
            width_out = self.convolutions(torch.zeros(1, *shape)).shape[1]
        self.project = nn.Sequential(layer(width_out, features, math.sqrt(2)), nn.ReLU())

    def forward(self, observation: Tensor) -> Tensor:
        """``[N, features]``."""
        return self.project(self.convolutions(observation.float() / self.scale))
