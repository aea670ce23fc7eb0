"""A family of policies indexed by a coefficient, and the model that picks a member for every state (FamO2O)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheostat.policies.control.critics import Stack
from rheostat.policies.control.squashed import SquashedGaussian
from rheostat.policies.control.views import Front

LOG_STD = (-10.0, 2.0)
"""Limits of the balance model's log standard deviation (the authors' code)."""
WAVELENGTHS = 10_000.0
"""Base of the encoding's wavelengths."""


def sin_cos_encoding(coefficient: Tensor, size: int = 6, base: float = WAVELENGTHS) -> Tensor:
    """``sin(beta / base^(2i/size)), cos(beta / base^(2i/size))`` for i = 0, 1, ..., interleaved: a number as a network can read it.

    Args:
        coefficient: ``[B]``.
        size: even number of features.
        base: of the wavelengths.

    Returns:
        ``[B, size]``.
    """
    exponent = torch.arange(0, size, 2, dtype=coefficient.dtype) / size
    angle = coefficient.unsqueeze(-1) / base**exponent
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


def coefficient_of(squashed: Tensor, low: float, high: float, *, released: bool = False) -> Tensor:
    """The coefficient of numbers in (-1, 1) of any shape, in the same shape: the affine map onto ``(low, high)``.

    ``released`` leaves the step from (-1, 1) to (0, 1) out, as the authors' CQL code does: the range becomes ``(2 low - high, high)``.
    """
    return low + (high - low) * (squashed if released else (squashed + 1) / 2)


class BalanceModel(nn.Module):
    """Picks the coefficient of a state: a squashed normal number, mapped onto a range.

    Args:
        observations: features that the perceptron reads.
        low, high: range of the coefficient.
        hidden: widths of the hidden layers.
        released_map: see :func:`coefficient_of`.
        front: what makes features of pictures.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        observations: int,
        low: float,
        high: float,
        *,
        hidden: tuple[int, ...] = (256, 256),
        released_map: bool = False,
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        self.low, self.high, self.released_map = low, high, released_map
        self.stack = Stack(1, observations, hidden, 1, generator=generator)
        self.log_std = nn.Parameter(torch.zeros(1))

    def distribution(self, observation: Tensor) -> SquashedGaussian:
        """Of the number in (-1, 1), ``[B, 1]``."""
        return SquashedGaussian(self.stack(self.front(observation))[0], self.log_std.clamp(*LOG_STD))

    def draw(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised coefficients ``[B]`` and the log-probabilities ``[B]`` of the squashed numbers, before they are mapped."""
        squashed, log_prob = self.distribution(observation).draw(noise)
        return coefficient_of(squashed[:, 0], self.low, self.high, released=self.released_map), log_prob

    def mode(self, observation: Tensor) -> Tensor:
        """The coefficient of the mean, ``[B]``."""
        return coefficient_of(self.distribution(observation).mode()[:, 0], self.low, self.high, released=self.released_map)
