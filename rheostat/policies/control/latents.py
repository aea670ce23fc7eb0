"""Networks of zero-shot methods: features on a sphere, predictors of sums of features, and policies that are told their task.

TD-JEPA, arXiv 2510.00739. All are K networks as one, whose layers are batched matrix products; K is 1 where there is no ensemble.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, relu

from rheostat.errors import RheostatError
from rheostat.objectives.latent_prediction import on_sphere


class Dense(nn.Module):
    """K matrix products, ``[K or 1, B, inputs]`` to ``[K, B, outputs]``; weights start orthogonal, biases at 0.

    Args:
        networks: K.
        inputs, outputs: features of a row.
        generator: draws the initial weights.

    An ensemble's weights are scaled by ``sqrt(2)``, those of a single network are not, as in the authors' code.
    """

    def __init__(self, networks: int, inputs: int, outputs: int, generator: torch.Generator | None) -> None:
        super().__init__()
        gain = math.sqrt(2) if networks > 1 else 1.0
        self.weight = nn.Parameter(torch.empty(networks, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(networks, 1, outputs))
        for weight in self.weight.data:
            nn.init.orthogonal_(weight, gain, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.weight) == 1:
            return torch.addmm(self.bias[0], x[0], self.weight[0]).unsqueeze(0)
        return torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight)


class NormalisedTanh(nn.Module):
    """The tanh of layer normalisation, with a scale and a shift per network, ``[K, B, width]``."""

    def __init__(self, networks: int, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(networks, 1, width)), nn.Parameter(torch.zeros(networks, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, layer_norm(x, x.shape[-1:]), self.scale).tanh()


class ReLU(nn.Module):
    """As a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)


def embedding(networks: int, inputs: int, width: int, generator: torch.Generator | None) -> nn.Sequential:
    """``relu(W2 tanh(norm(W1 x)))``, half as wide as its hidden layer."""
    first, second = Dense(networks, inputs, width, generator), Dense(networks, width, width // 2, generator)
    return nn.Sequential(first, NormalisedTanh(networks, width), second, ReLU())


def perceptron(networks: int, widths: Sequence[int], outputs: int, generator: torch.Generator | None) -> nn.Sequential:
    """Hidden layers with relu, and a last one without."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [Dense(networks, before, after, generator), ReLU()]
    return nn.Sequential(*layers, Dense(networks, widths[-1], outputs, generator))


class SphereEncoder(nn.Module):
    """Features of observations on the sphere of radius ``sqrt(D)``, ``[B, observations]`` to ``[B, D]``.

    Args:
        observations: numbers of an observation.
        features: D.
        hidden: widths; the first layer has layer normalisation and tanh, those after it relu. Empty: one linear map.
        generator: draws the initial weights.
    """

    def __init__(self, observations: int, features: int, *, hidden: tuple[int, ...] = (), generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not hidden:
            self.body: nn.Module = Dense(1, observations, features, generator)
            return
        first = [Dense(1, observations, hidden[0], generator), NormalisedTanh(1, hidden[0])]
        self.body = nn.Sequential(*first, *perceptron(1, hidden, features, generator))

    def forward(self, observation: Tensor) -> Tensor:
        return on_sphere(self.body(observation.unsqueeze(0))[0])


class TwoBranches(nn.Module):
    """Two inputs that are embedded apart and read together: ``[B, a]`` and ``[B, b]`` to ``[K, B, outputs]``.

    Args:
        networks: K.
        first, second: numbers of the inputs.
        outputs: numbers per row.
        hidden: widths; the first is also that of the embeddings, and even.
        generator: draws the initial weights.

    Raises:
        RheostatError: no layer, or an odd width, which has no half.
    """

    def __init__(
        self, networks: int, first: int, second: int, outputs: int, *, hidden: tuple[int, ...], generator: torch.Generator | None
    ) -> None:
        super().__init__()
        if not hidden or hidden[0] % 2:
            raise RheostatError(f"hidden is {hidden}: it needs a first layer with an even number of units, a half for each input.")
        self.first = embedding(networks, first, hidden[0], generator)
        self.second = embedding(networks, second, hidden[0], generator)
        self.body = perceptron(networks, (hidden[0], *hidden), outputs, generator)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        parts = [branch(x.unsqueeze(0)) for branch, x in ((self.first, first), (self.second, second))]
        found: Tensor = self.body(torch.cat(parts, -1))
        return found


class LatentPredictor(nn.Module):
    """F(s, z, a): M predictions of the sum of features that the policy of task z meets after action a in s.

    Args:
        states, tasks, actions: numbers of its inputs.
        features: numbers of a prediction.
        networks: M.
        hidden, generator: see :class:`TwoBranches`.
    """

    def __init__(
        self,
        states: int,
        tasks: int,
        actions: int,
        features: int,
        *,
        networks: int = 2,
        hidden: tuple[int, ...] = (1024,),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.body = TwoBranches(networks, states + tasks, states + actions, features, hidden=hidden, generator=generator)

    def forward(self, state: Tensor, task: Tensor, action: Tensor) -> Tensor:
        """``[B, states]``, ``[B, tasks]`` and unit actions ``[B, actions]`` to ``[M, B, features]``."""
        found: Tensor = self.body(torch.cat([state, task], -1), torch.cat([state, action], -1))
        return found


class TaskActor(nn.Module):
    """pi_z(s): one unit action per state and task; with ``noise``, one per draw of noise too.

    Args:
        states, tasks, actions: numbers of its inputs and of an action.
        noise: whether it reads a standard normal number per action dimension (the flow actor).
        hidden, generator: see :class:`TwoBranches`.
    """

    def __init__(
        self,
        states: int,
        tasks: int,
        actions: int,
        *,
        noise: bool = False,
        hidden: tuple[int, ...] = (1024,),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        extra = actions if noise else 0
        self.noise = extra
        self.body = TwoBranches(1, states + extra, states + tasks + extra, actions, hidden=hidden, generator=generator)

    def forward(self, state: Tensor, task: Tensor, noise: Tensor | None = None) -> Tensor:
        """``[B, states]``, ``[B, tasks]`` and noise ``[B, actions]`` to unit actions ``[B, actions]``."""
        state = state if noise is None else torch.cat([state, noise], -1)
        found: Tensor = self.body(state, torch.cat([state, task], -1))[0].tanh()
        return found


class ActionFlow(nn.Module):
    """v(s, x, t): the velocity that carries noise to actions of the data, ``[B, actions]``.

    Args:
        states, actions: numbers of its inputs.
        hidden, generator: see :class:`TwoBranches`.
    """

    def __init__(self, states: int, actions: int, *, hidden: tuple[int, ...] = (1024,), generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.body = TwoBranches(1, states, states + actions + 1, actions, hidden=hidden, generator=generator)

    def forward(self, state: Tensor, point: Tensor, time: Tensor) -> Tensor:
        """``[B, states]``, points ``[B, actions]`` and times ``[B]`` in [0, 1] (0 is noise)."""
        found: Tensor = self.body(state, torch.cat([state, point, time.unsqueeze(-1)], -1))[0]
        return found

    @torch.no_grad()
    def carried(self, state: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Where noise ``[B, actions]`` arrives after so many Euler steps, limited to [-1, 1]."""
        point = noise
        for step in range(steps):
            point = point + self(state, point, noise.new_full((len(noise),), step / steps)) / steps
        return point.clamp(-1.0, 1.0)
