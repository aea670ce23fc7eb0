"""Networks of discrete actions: one number per action, which are values (DQN, critics of choices) or logits (actors of choices)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rheostat.policies.control.critics import Stack
from rheostat.policies.control.distributions import Categorical
from rheostat.policies.control.pixels import Pixels
from rheostat.policies.control.views import Front, picture_network


class DiscreteQ(nn.Module):
    """Vectors through a multilayer perceptron with ReLU, uint8 images through the convolutions of :class:`Pixels`.

    Args:
        observation_space: a Gymnasium ``Box``: vector, or image ``[C, H, W]``.
        choices: number of actions A.
        hidden: widths of the hidden layers, for vectors only.
        generator: draws the initial weights.
    """

    def __init__(
        self, observation_space: Any, choices: int, *, hidden: tuple[int, ...] = (120, 84), generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        pictures = picture_network(observation_space, generator)
        self.trunk: nn.Module = nn.Identity() if pictures is None else pictures
        inputs = observation_space.shape[0] if pictures is None else pictures.width
        self.stack = Stack(1, inputs, () if isinstance(pictures, Pixels) else hidden, choices, generator=generator)

    def forward(self, observation: Tensor) -> Tensor:
        """Normalised vectors, or raw images ``[B, ...]``, to ``[B, A]``."""
        return self.stack(self.trunk(observation))[0]


class DiscreteActor(nn.Module):
    """A softmax over choices, for methods with critics of choices.

    Args:
        observations: features that the perceptron reads.
        choices: number of actions A.
        hidden: widths of the hidden layers.
        front: what makes features of pictures.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        observations: int,
        choices: int,
        *,
        hidden: tuple[int, ...] = (256, 256),
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        self.stack = Stack(1, observations, hidden, choices, generator=generator)

    def distribution(self, observation: Tensor) -> Categorical:
        """For observations ``[N, ...]`` as they are read."""
        return Categorical(self.stack(self.front(observation))[0])


class DiscreteEnsembleQ(nn.Module):
    """K critics Q_k(s, a) of choices: every one gives the values of all actions at once.

    Args:
        observations: features that the perceptrons read.
        choices: number of actions A.
        networks: K.
        hidden, normalise, generator: see :class:`~rheostat.policies.control.critics.Stack`.
        front: what makes features of pictures, one for all K.
    """

    def __init__(
        self,
        observations: int,
        choices: int,
        *,
        networks: int = 2,
        hidden: tuple[int, ...] = (256, 256),
        normalise: bool = False,
        front: Front | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module = front or nn.Identity()
        self.stack = Stack(networks, observations, hidden, choices, normalise=normalise, generator=generator)

    def of_all(self, observation: Tensor, *, frozen: bool = False) -> Tensor:
        """Values of all choices, ``[K, B, A]``; ``frozen`` takes the weights as constants."""
        features = self.front(observation)
        return self.stack(features.detach() if frozen else features, frozen=frozen)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values of the choices int64 ``[B]``, ``[K, B]``."""
        values = self.of_all(observation)
        return scores_of(values, action.expand(len(values), -1))


def scores_of(scores: Tensor, action: Tensor) -> Tensor:
    """The numbers of the actions that were taken: ``[..., A]`` and int64 ``[...]`` to ``[...]``."""
    return scores.gather(-1, action.unsqueeze(-1)).squeeze(-1)
