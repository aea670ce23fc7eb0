"""Networks of discrete actions: one number per action, which are values (DQN) or logits (behaviour cloning)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rheostat.policies.control.critics import Stack
from rheostat.policies.control.pixels import Pixels
from rheostat.policies.control.views import Views

PIXEL_FEATURES = 512
"""Width of the layer above the convolutions (Mnih et al. 2015)."""


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
        shape = observation_space.shape
        self.trunk: nn.Module = nn.Identity()
        if len(shape) == 3:
            with torch.random.fork_rng(devices=[]):  # initialisers of convolutions only know the global generator: borrow it
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
                self.trunk = Pixels(shape, PIXEL_FEATURES)
            self.stack = Stack(1, PIXEL_FEATURES, (), choices, generator=generator)
        elif getattr(observation_space, "pictures", ()):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
                views = Views(observation_space)
            self.trunk = views
            self.stack = Stack(1, views.width, hidden, choices, generator=generator)
        else:
            self.stack = Stack(1, shape[0], hidden, choices, generator=generator)

    def forward(self, observation: Tensor) -> Tensor:
        """Normalised vectors, or raw images ``[B, ...]``, to ``[B, A]``."""
        return self.stack(self.trunk(observation))[0]


def scores_of(scores: Tensor, action: Tensor) -> Tensor:
    """The numbers of the actions that were taken: ``[B, A]`` and int64 ``[B]`` to ``[B]``."""
    return scores.gather(-1, action.unsqueeze(-1)).squeeze(-1)
