"""A velocity field over the hidden states of a language model: a network for flow matching (RLFR, arXiv 2510.10201).

Every block is modulated by the time, the layer and the neighbouring hidden state (adaptive layer norm, Peebles and Xie 2023,
arXiv 2212.09748); what modulates and what comes out begins at 0, so a new field is 0 everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from rheostat.policies.language.model import TokenScores

WAVES = 256
"""Numbers that a time, or a depth, is written in before it is embedded."""
TURNS = 1000.0
"""Radians of the fastest of them from time 0 to time 1."""
EPS = 1e-6
"""Of the norms."""


def waves(x: Tensor) -> Tensor:
    """Cosines and sines ``[n, WAVES]`` of numbers ``[n]`` between 0 and 1, at frequencies that fall by a factor of 10,000."""
    rates = TURNS * torch.exp(-math.log(10_000) / (WAVES // 2) * torch.arange(WAVES // 2, device=x.device, dtype=x.dtype))
    angles = x[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x`` ``[n, D]`` divided by its root mean square, scaled and shifted."""
    return nn.functional.rms_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class Block(nn.Module):
    """A residual block of width D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer, self.modulation = nn.Linear(width, width), nn.Linear(width, width), zeros(width, 3 * width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """From ``x`` ``[n, D]`` and what modulates it, ``[n, D]``."""
        shift, scale, gate = self.modulation(silu(y)).chunk(3, -1)
        return x + gate * self.outer(silu(self.inner(modulated(x, shift, scale))))


class FlowField(nn.Module):
    """``v(x, t, condition, depth)``, ``[n, D]``.

    Args:
        width: D, of the hidden states.
        blocks: residual blocks.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.point, self.condition = nn.Linear(width, width), nn.Linear(width, width)
        self.time, self.depth = (nn.Sequential(nn.Linear(WAVES, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(2))
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.modulation, self.velocity = zeros(width, 2 * width), zeros(width, width)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, depth: Tensor) -> Tensor:
        """The velocity.

        Args:
            x: ``[n, D]``.
            t: ``[n]``, from 0 (noise) to 1 (data).
            condition: ``[n, D]``, the neighbouring hidden state.
            depth: ``[n]``, number of the layer as a share of all.
        """
        y = self.time(waves(t)) + self.depth(waves(depth)) + self.condition(condition)
        x = self.point(x)
        for block in self.blocks:
            x = block(x, y)
        velocity: Tensor = self.velocity(modulated(x, *self.modulation(silu(y)).chunk(2, -1)))
        return velocity

    def score(self, action: Tensor, attention: Tensor, mask: Tensor, **options: Any) -> TokenScores:
        """It has no distribution over tokens ``[B, T]``: log-probabilities and entropies are 0, and nothing is computed.

        Args:
            action, attention, mask: as of every model that is trained on rows.
            options: of the sampler, not read.
        """
        nothing = torch.zeros(mask.shape, device=mask.device)
        return TokenScores(nothing, nothing)


def zeros(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that is 0."""
    found = nn.Linear(inputs, outputs)
    nn.init.zeros_(found.weight)
    nn.init.zeros_(found.bias)
    return found
