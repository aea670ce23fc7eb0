"""Actors and critics for control: separate small networks, orthogonal initialisation, Gaussian or categorical heads.

The reference details (numbered as in "The 37 implementation details of PPO", Huang et al. 2022): orthogonal weights with gain sqrt(2) in
hidden layers, 0.01 in the policy head and 1 in the value head, zero biases (2); state-independent log standard deviation (24); separate
actor and critic (26); the Nature network for images, divided by 255 (21, 22).
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError
from rheostat.policies.control.distributions import Categorical, Distribution, Gaussian, MultiCategorical
from rheostat.policies.control.pixels import Pixels, layer
from rheostat.policies.control.views import Views


class ControlPolicy(Protocol):
    """What a control method needs of a network; a network of your own needs these two methods."""

    def distribution(self, observation: Tensor) -> Distribution:
        """The action distribution for normalised observations ``[N, ...]``."""
        ...

    def value(self, observation: Tensor) -> Tensor:
        """The critic's value ``[N]``."""
        ...


class Evaluation:
    """A policy's outputs for a batch of observations, as constants, and the backward pass to its parameters.

    Attributes:
        distribution: of the actions.
        value: ``[N]``, the critic's; None if it was not computed.
    """

    def __init__(self, distribution: Distribution, value: Tensor | None) -> None:
        self._outputs = (distribution.parameters, value)
        self.distribution = distribution.detach()
        self.value = None if value is None else value.detach()

    def backward(self, distribution: Tensor, value: Tensor | None = None) -> None:
        """Add to the gradients of the policy's parameters.

        Args:
            distribution: derivative of the loss with respect to ``distribution.parameters``, ``[N, P]``.
            value: derivative of the loss with respect to ``value``, ``[N]``.
        """
        parameters, values = self._outputs
        if value is None:
            torch.autograd.backward(parameters, distribution)
        else:
            assert values is not None
            torch.autograd.backward((parameters, values), (distribution, value))


def evaluate(policy: ControlPolicy, observation: Tensor, *, critic: bool = True) -> Evaluation:
    """Distribution and value together: by the network's own ``evaluate`` where it has one, else one after the other by autograd.

    Args:
        policy: any network.
        observation: normalised, ``[N, ...]``.
        critic: whether to compute the value.
    """
    if hasattr(policy, "evaluate"):
        return policy.evaluate(observation, critic=critic)
    return Evaluation(policy.distribution(observation), policy.value(observation) if critic else None)


def body(inputs: int, hidden: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """Hidden layers of a multilayer perceptron, ``[N, inputs] -> [N, hidden[-1]]``."""
    modules: list[nn.Module] = []
    for before, after in itertools.pairwise((inputs, *hidden)):
        modules += [layer(before, after, math.sqrt(2)), activation()]
    return nn.Sequential(*modules)


class ActorCritic(nn.Module):
    """Separate actor and critic over vectors, or a shared convolutional trunk over images; for vectors that contain pictures, both.

    Args:
        observation_space: a Gymnasium ``Box`` (vector, or uint8 image ``[C, H, W]``).
        action_space: ``Box``, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``.
        hidden: widths of the hidden layers.
        activation: ``tanh`` or ``relu``.
        log_std: initial log standard deviation of a Gaussian head.
        tanh_mean: squash the Gaussian mean (what the authors of PROPS v1 do).
        seed: of the initial weights.

    Raises:
        RheostatError: an action space no head exists for.
    """

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        hidden: tuple[int, ...] = (64, 64),
        activation: str = "tanh",
        log_std: float = 0.0,
        tanh_mean: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        from gymnasium import spaces

        shape = observation_space.shape
        with torch.random.fork_rng(devices=[]):  # initialisers only know the global generator: borrow it and give it back
            torch.manual_seed(seed)
            self.sizes: tuple[int, ...] = ()
            if isinstance(action_space, spaces.Box):
                outputs = math.prod(action_space.shape)
                self.log_std = nn.Parameter(torch.full((outputs,), float(log_std)))
            elif isinstance(action_space, spaces.Discrete):
                outputs = int(action_space.n)
                self.sizes = (outputs,)
            elif isinstance(action_space, spaces.MultiDiscrete):
                self.sizes = tuple(int(n) for n in action_space.nvec.flatten())
                outputs = sum(self.sizes)
            elif isinstance(action_space, spaces.MultiBinary):
                self.sizes = (2,) * int(np.prod(action_space.shape))
                outputs = sum(self.sizes)
            else:
                raise RheostatError(
                    f"No policy head exists for the action space {action_space}: use Box, Discrete, MultiDiscrete or MultiBinary actions."
                )
            self.kind = (
                "gaussian" if isinstance(action_space, spaces.Box) else "discrete" if isinstance(action_space, spaces.Discrete) else "multi"
            )
            self.tanh_mean = tanh_mean
            if len(shape) == 3:
                self.trunk: nn.Module = Pixels(shape)
                width = critic_width = 256
                self.actor_body: nn.Module = nn.Identity()
                self.critic_body: nn.Module = nn.Identity()
            else:
                views = Views(observation_space) if getattr(observation_space, "pictures", ()) else None
                self.trunk = nn.Flatten() if views is None else views
                kind = {"tanh": nn.Tanh, "relu": nn.ReLU}[activation]
                inputs = math.prod(shape) if views is None else views.width
                self.actor_body = body(inputs, hidden, kind)
                self.critic_body = body(inputs, hidden, kind)
                width = critic_width = hidden[-1] if hidden else inputs
            self.actor_head = layer(width, outputs, 0.01)
            self.critic_head = layer(critic_width, 1, 1.0)

    def features(self, observation: Tensor) -> Tensor:
        """What the actor's head reads, ``[N, F]``."""
        return self.actor_body(self.trunk(observation))

    def head(self, features: Tensor) -> Distribution:
        """The action distribution from the actor's features."""
        return self.distribution_of(self.actor_head(features))

    def distribution_of(self, outputs: Tensor) -> Distribution:
        """The action distribution from the actor head's outputs ``[N, P]``."""
        if self.kind == "gaussian":
            return Gaussian(outputs.tanh() if self.tanh_mean else outputs, self.log_std)
        if self.kind == "discrete":
            return Categorical(outputs)
        return MultiCategorical(outputs, self.sizes)

    def distribution(self, observation: Tensor) -> Distribution:
        """The action distribution for normalised observations ``[N, ...]``."""
        return self.head(self.features(observation))

    def value(self, observation: Tensor) -> Tensor:
        """The critic's value ``[N]``."""
        return self.critic_head(self.critic_body(self.trunk(observation))).squeeze(-1)


class TabularSoftmax(nn.Module):
    """One logit per state and action (and one value per state) over one-hot observations ``[N, S]``: the exact setting of ROS.

    Args:
        states: number of states S. actions: number of actions A.
        scale: standard deviation of the initial logits.
    """

    def __init__(self, states: int, actions: int, *, scale: float = 0.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(states, actions, generator=generator) * scale)
        self.values = nn.Parameter(torch.zeros(states))

    def distribution(self, observation: Tensor) -> Categorical:
        """The softmax over the row of logits of each state."""
        return Categorical(observation @ self.logits)

    def value(self, observation: Tensor) -> Tensor:
        """The value of each state, ``[N]``."""
        return observation @ self.values
