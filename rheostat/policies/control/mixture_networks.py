"""Networks whose policy is a mixture of Gaussian experts: the experts are slices of one network's output, the weights have a network of
their own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError
from rheostat.policies.control.actor_critic import body
from rheostat.policies.control.actors import LOG_STD
from rheostat.policies.control.critics import EnsembleQ, Stack
from rheostat.policies.control.mixtures import MixtureOfGaussians, SquashedMixture
from rheostat.policies.control.pixels import layer
from rheostat.policies.control.views import Front


def require_experts(experts: int) -> None:
    """Refuse a mixture of nothing.

    Raises:
        RheostatError: fewer than one expert.
    """
    if experts < 1:
        raise RheostatError(f"A mixture of {experts} experts draws nothing: use at least 1, which is the plain Gaussian policy.")


class MixtureActor(nn.Module):
    """``tanh`` of a mixture of Gaussians whose weights, means and deviations depend on the state (PMOE on SAC).

    Args:
        observations, actions: features that the networks read, and of a unit action.
        experts: K.
        hidden: widths of the hidden layers of the experts' network.
        mixture_hidden: widths of the hidden layers of the weights' network; none is a single linear layer.
        log_std: limits of the log standard deviation, by clipping.
        initial_output: the experts' last layer starts uniform in +- this; None as in :class:`Stack`.
        front: what makes features of pictures, one for experts and weights.
        generator: draws the initial weights.

    Raises:
        RheostatError: fewer than one expert.
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        experts: int,
        hidden: tuple[int, ...] = (256, 256),
        mixture_hidden: tuple[int, ...] = (),
        log_std: tuple[float, float] = LOG_STD,
        initial_output: float | None = None,
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        require_experts(experts)
        self.shape, self.limits = (experts, actions), log_std
        self.stack = Stack(1, observations, hidden, 2 * experts * actions, generator=generator)
        if initial_output is not None:
            for parameter in (self.stack.weights[-1], self.stack.biases[-1]):
                nn.init.uniform_(parameter, -initial_output, initial_output, generator=generator)
        self.weights = Stack(1, observations, mixture_hidden, experts, generator=generator)

    def distribution(self, observation: Tensor, expert_generator: torch.Generator | None = None) -> SquashedMixture:
        """For normalised observations ``[N, observations]``; ``expert_generator`` draws the expert of the deterministic action."""
        seen = self.front(observation)
        mean, log_std = (part.unflatten(-1, self.shape) for part in self.stack(seen)[0].chunk(2, -1))
        return SquashedMixture(self.weights(seen)[0], mean, log_std.clamp(*self.limits), expert_generator)


class MixtureActorCritic(nn.Module):
    """Mixture of Gaussians with deviations that do not depend on the state, a state value, and an action critic Q(s, a)
    (PMOE on PPO). Weights start as those of :class:`~rheostat.policies.control.actor_critic.ActorCritic`.

    Args:
        observation_space: a Gymnasium ``Box`` of vectors.
        action_space: ``Box``.
        experts: K.
        hidden: widths of the hidden layers of the experts and of the critic.
        judge_hidden: of the action critic, with ReLU.
        activation: ``tanh`` or ``relu``.
        log_std: initial log standard deviation.
        seed: of the initial weights.

    Raises:
        RheostatError: fewer than one expert, images, or actions that are not a Box.
    """

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        experts: int,
        hidden: tuple[int, ...] = (64, 64),
        judge_hidden: tuple[int, ...] = (64, 64, 64),
        activation: str = "tanh",
        log_std: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        from gymnasium import spaces

        require_experts(experts)
        if not isinstance(action_space, spaces.Box):
            raise RheostatError(
                f"A mixture of Gaussians needs continuous actions (a Box), and this environment has {action_space}: use ppo."
            )
        pictures = getattr(observation_space, "pictures", ())
        if pictures or len(observation_space.shape) == 3:
            raise RheostatError("This network reads vectors of numbers, and the environment shows images: use ppo.")
        inputs, actions = math.prod(observation_space.shape), math.prod(action_space.shape)
        width = hidden[-1] if hidden else inputs
        self.shape = (experts, actions)
        with torch.random.fork_rng(devices=[]):  # initialisers only know the global generator: borrow it and give it back
            torch.manual_seed(seed)
            kind = {"tanh": nn.Tanh, "relu": nn.ReLU}[activation]
            self.actor_body, self.critic_body = (body(inputs, hidden, kind) for _ in range(2))
            self.actor_head, self.critic_head = layer(width, experts * actions, 0.01), layer(width, 1, 1.0)
            self.log_std = nn.Parameter(torch.full(self.shape, float(log_std)))
            self.weights = nn.Linear(inputs, experts)
            self.judge = EnsembleQ(inputs, actions, networks=1, hidden=judge_hidden)

    def distribution(self, observation: Tensor) -> MixtureOfGaussians:
        """The action distribution for normalised observations ``[N, ...]``."""
        seen = observation.flatten(1)
        mean = self.actor_head(self.actor_body(seen)).unflatten(-1, self.shape)
        return MixtureOfGaussians(self.weights(seen), mean, self.log_std)

    def value(self, observation: Tensor) -> Tensor:
        """The critic's value ``[N]``."""
        return self.critic_head(self.critic_body(observation.flatten(1))).squeeze(-1)
