"""Critics of continuous and discrete actions: K small networks as one, whose layers are batched matrix products."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, relu

from rheostat.errors import RheostatError

EPSILON = 1e-5
"""Of layer normalisation."""


class Stack(nn.Module):
    """K multilayer perceptrons with ReLU, ``[B, inputs]`` (the same for all) to ``[K, B, outputs]``.

    Weights and biases start uniform in ``+-1/sqrt(inputs of the layer)``, PyTorch's default and that of the published codes.

    Args:
        networks: K, at least 1.
        inputs: features of a row.
        hidden: widths of the hidden layers.
        outputs: numbers per row.
        normalise: layer normalisation after every hidden matrix product, with a scale and a shift per network (RLPD).
        generator: draws the initial weights.
    """

    def __init__(
        self,
        networks: int,
        inputs: int,
        hidden: tuple[int, ...],
        outputs: int,
        *,
        normalise: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if networks < 1:
            raise RheostatError(f"An ensemble of {networks} critics cannot judge anything: use at least 1.")
        self.networks = networks
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.scales, self.shifts = nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise((inputs, *hidden, outputs)):
            bound = 1 / math.sqrt(before)
            self.weights.append(nn.Parameter(torch.empty(networks, before, after).uniform_(-bound, bound, generator=generator)))
            self.biases.append(nn.Parameter(torch.empty(networks, 1, after).uniform_(-bound, bound, generator=generator)))
        for width in hidden if normalise else ():
            self.scales.append(nn.Parameter(torch.ones(networks, 1, width)))
            self.shifts.append(nn.Parameter(torch.zeros(networks, 1, width)))

    def forward(self, x: Tensor, *, frozen: bool = False) -> Tensor:
        """All networks on the same rows, or each on rows of its own.

        Args:
            x: ``[B, inputs]``, or ``[K, B, inputs]``.
            frozen: take the weights as constants: the gradient flows to ``x`` alone (a policy's step does not move its critics).

        Returns:
            ``[K, B, outputs]``.
        """
        x = x.expand(self.networks, -1, -1) if x.dim() == 2 else x
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight, bias = (weight.detach(), bias.detach()) if frozen else (weight, bias)
            x = torch.baddbmm(bias, x, weight)
            if index == last:
                break
            if len(self.scales):
                scale, shift = self.scales[index], self.shifts[index]
                scale, shift = (scale.detach(), shift.detach()) if frozen else (scale, shift)
                x = torch.addcmul(shift, layer_norm(x, x.shape[-1:], eps=EPSILON), scale)
            x = relu(x)
        return x


class EnsembleQ(nn.Module):
    """K critics Q_k(s, a) of continuous actions.

    Args:
        observations, actions: features of an observation and of a unit action.
        networks: K.
        hidden, normalise, generator: see :class:`Stack`.
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        networks: int = 2,
        hidden: tuple[int, ...] = (256, 256),
        normalise: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.stack = Stack(networks, observations + actions, hidden, 1, normalise=normalise, generator=generator)

    def forward(self, observation: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
        """``[B, observations]`` and unit actions ``[B, actions]`` to ``[K, B]``; ``frozen`` as in :meth:`Stack.forward`."""
        return self.stack(torch.cat([observation, action], -1), frozen=frozen).squeeze(-1)

    def of_many(self, observation: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
        """Several actions per observation: ``[B, observations]`` and ``[B, N, actions]`` to ``[K, B, N]``."""
        rows, count = action.shape[:2]
        repeated = observation.unsqueeze(1).expand(rows, count, observation.shape[-1])
        joined = torch.cat([repeated, action], -1).flatten(0, 1)
        return self.stack(joined, frozen=frozen).view(self.stack.networks, rows, count)


class StateValue(nn.Module):
    """One critic V(s), ``[B, observations]`` to ``[B]``."""

    def __init__(self, observations: int, *, hidden: tuple[int, ...] = (256, 256), generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.stack = Stack(1, observations, hidden, 1, generator=generator)

    def forward(self, observation: Tensor) -> Tensor:
        """``[B]``."""
        return self.stack(observation)[0, :, 0]
