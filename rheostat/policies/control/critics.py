"""Critics of continuous and discrete actions: K small networks as one, whose layers are batched matrix products.

Where oneDNN's product is much the faster one (:mod:`rheostat.policies.language.matmul`) and the layers are wide, the K products of a
layer go to it one after the other; it has none for batches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, relu

from rheostat.errors import RheostatError
from rheostat.policies.control.stacked_mlp import perceptrons
from rheostat.policies.control.views import Front
from rheostat.policies.language.matmul import by_onednn, linear

EPSILON = 1e-5
"""Epsilon of layer normalisation."""


class Stack(nn.Module):
    """K multilayer perceptrons, ``[B, inputs]`` (the same for all) to ``[K, B, outputs]``.

    Weights and biases start uniform in ``+-1/sqrt(inputs of the layer)``, PyTorch's default and that of the published codes.

    Args:
        networks: K, at least 1.
        inputs: features of a row.
        hidden: widths of the hidden layers.
        outputs: numbers per row.
        normalise: layer normalisation after every hidden matrix product, with a scale and a shift per network (RLPD).
        activation: between the layers.
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
        activation: Callable[[Tensor], Tensor] = relu,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if networks < 1:
            raise RheostatError(f"An ensemble of {networks} critics cannot judge anything: use at least 1.")
        self.networks, self.activation = networks, activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.scales, self.shifts = nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise((inputs, *hidden, outputs)):
            bound = 1 / math.sqrt(before)
            self.weights.append(nn.Parameter(torch.empty(networks, after, before).uniform_(-bound, bound, generator=generator)))
            self.biases.append(nn.Parameter(torch.empty(networks, 1, after).uniform_(-bound, bound, generator=generator)))
        for width in hidden if normalise else ():
            self.scales.append(nn.Parameter(torch.ones(networks, 1, width)))
            self.shifts.append(nn.Parameter(torch.zeros(networks, 1, width)))
        # The same parameters once more, because walking through a ParameterList takes as long as a small product. They are changed in place
        # only; torch.func.functional_call, which replaces them, would not be seen.
        self.layers = list(zip(self.weights, self.biases, strict=True))
        self.norms = list(zip(self.scales, self.shifts, strict=True))

    def forward(self, x: Tensor, *, frozen: bool = False, subset: Tensor | None = None) -> Tensor:
        """All networks (or some) on the same rows, or each on rows of its own.

        Args:
            x: ``[B, inputs]``, or ``[K, B, inputs]``.
            frozen: take the weights as constants: the gradient flows to ``x`` alone (a policy's step does not move its critics).
            subset: int64 indices of the networks to evaluate, in this order; K is then their number. None evaluates all.

        Returns:
            ``[K, B, outputs]``.
        """

        layers: list[tuple[Tensor, ...]] = list(self.layers)
        norms: list[tuple[Tensor, ...]] = list(self.norms)
        if frozen:
            layers, norms = ([tuple(part.detach() for part in pair) for pair in pairs] for pairs in (layers, norms))
        if subset is not None:
            layers, norms = ([tuple(part[subset] for part in pair) for pair in pairs] for pairs in (layers, norms))
        networks = self.networks if subset is None else len(subset)
        if by_onednn(x.shape[-2], max(weight[0].numel() for weight, _ in layers), x):
            inputs = x.unbind() if x.dim() == 3 else [x] * networks
            apart = [[part.unbind() for part in pair] for pair in (*layers, *norms)]  # one by one, each would get a gradient of all K
            each = [[[part[k] for part in pair] for pair in apart] for k in range(networks)]
            return torch.stack([_one(row, parts, len(layers), self.activation) for row, parts in zip(inputs, each, strict=True)])
        if self.activation is relu and not norms:
            return perceptrons(x, *(tuple(part) for part in zip(*layers, strict=True)))
        x = x.expand(networks, -1, -1) if x.dim() == 2 else x
        for index, (weight, bias) in enumerate(layers):
            x = torch.baddbmm(bias, x, weight.transpose(1, 2))
            if index < len(layers) - 1:
                x = self.activation(_normalised(x, *norms[index]) if norms else x)
        return x


def _one(x: Tensor, parts: list[list[Tensor]], layers: int, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """One network, ``[B, inputs]`` to ``[B, outputs]``: its weights and biases, then its scales and shifts."""
    for index, (weight, bias) in enumerate(parts[:layers]):
        x = linear(x, weight, bias[0])
        if index < layers - 1:
            x = activation(_normalised(x, *parts[layers + index]) if len(parts) > layers else x)
    return x


def _normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, layer_norm(x, x.shape[-1:], eps=EPSILON), scale)


class EnsembleQ(nn.Module):
    """K critics Q_k(s, a) of continuous actions; columns of an observation beyond its own are not read (a family's coefficient).

    Args:
        observations, actions: features that the perceptrons read, and of a unit action.
        networks: K.
        hidden, normalise, generator: see :class:`Stack`.
        front: what makes features of pictures, one for all K.
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        networks: int = 2,
        hidden: tuple[int, ...] = (256, 256),
        normalise: bool = False,
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        self.columns = observations if front is None else front.columns  # further ones are not read
        self.stack = Stack(networks, observations + actions, hidden, 1, normalise=normalise, generator=generator)

    @property
    def networks(self) -> int:
        """K."""
        return self.stack.networks

    def forward(self, observation: Tensor, action: Tensor, *, frozen: bool = False, subset: Tensor | None = None) -> Tensor:
        """``[B, ...]`` and unit actions ``[B, actions]`` to ``[K, B]``; ``frozen`` and ``subset`` as in :meth:`Stack.forward`."""
        return self.stack(torch.cat([self._features(observation, frozen), action], -1), frozen=frozen, subset=subset).squeeze(-1)

    def of_many(self, observation: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
        """Several actions per observation: ``[B, ...]`` and ``[B, N, actions]`` to ``[K, B, N]``."""
        rows, count = action.shape[:2]
        features = self._features(observation, frozen)
        repeated = features[:, None].expand(rows, count, features.shape[-1])
        joined = torch.cat([repeated, action], -1).flatten(0, 1)
        return self.stack(joined, frozen=frozen).view(self.stack.networks, rows, count)

    def _features(self, observation: Tensor, frozen: bool) -> Tensor:
        """``[B, features]``; a constant where the weights are."""
        features = self.front(observation[..., : self.columns])
        return features.detach() if frozen else features


class StateValue(nn.Module):
    """One critic V(s), ``[B, ...]`` to ``[B]``; columns beyond the observation's own are not read.

    Args:
        observations: features that the perceptron reads.
        hidden, generator: see :class:`Stack`.
        front: what makes features of pictures.
    """

    def __init__(
        self,
        observations: int,
        *,
        hidden: tuple[int, ...] = (256, 256),
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        self.columns = observations if front is None else front.columns
        self.stack = Stack(1, observations, hidden, 1, generator=generator)

    def forward(self, observation: Tensor) -> Tensor:
        """``[B]``."""
        return self.stack(self.front(observation[..., : self.columns]))[0, :, 0]
