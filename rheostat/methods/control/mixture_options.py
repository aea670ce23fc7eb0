"""What the methods with a mixture of experts for a policy share: their options, and the loss of the mixture's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.mixture_of_experts import frequency_loss, relaxed_choice, score_loss
from rheostat.policies.control.mixture_networks import require_experts
from rheostat.policies.control.mixtures import choose_expert
from rheostat.streams import Streams, derive_seed

MixtureGradient = Literal["frequency", "gumbel", "score"]
Deterministic = Literal["likeliest", "sampled"]


@dataclass(frozen=True)
class MixtureConfig:
    """How many experts, and how their weights learn."""

    mixture_size: int = 2
    """Gaussians in the mixture (K); 1 is the plain policy."""
    mixture_gradient: MixtureGradient = "frequency"
    """What moves the weights: a regression on the expert whose action the critic likes best (PMOE), a relaxed choice of an expert
    (Gumbel-softmax, straight through), or the score function with the critic's value and the expected value as baseline."""
    mixture_coefficient: float = 1.0
    """Factor of the weights' loss."""
    gumbel_temperature: float = 1.0
    """Of the relaxed choice."""
    deterministic: Deterministic = "likeliest"
    """Whose mean is the action when the policy is evaluated: the likeliest expert's, or that of an expert drawn from the weights (the
    authors). A trained policy in use takes the likeliest."""


def check_mixture(config: MixtureConfig) -> None:
    """Refuse options that cannot work.

    Raises:
        RheostatError: no experts, a negative coefficient, or a temperature that is not above 0.
    """
    require_experts(config.mixture_size)
    if config.mixture_coefficient < 0:
        raise RheostatError(
            f"mixture_coefficient is {config.mixture_coefficient:g}: the weights would flee what they should learn; use at least 0."
        )
    if not config.gumbel_temperature > 0:
        raise RheostatError(f"gumbel_temperature is {config.gumbel_temperature:g}: it must be above 0.")


class Choice(NamedTuple):
    """An expert drawn for every row."""

    drawn: Tensor
    """int64 ``[B]``."""
    relaxed: Tensor | None
    """``[B, K]``, one-hot with a gradient (Gumbel only)."""


def draw_choice(config: MixtureConfig, logits: Tensor, generator: torch.Generator) -> Choice:
    """Draw from the weights ``softmax(logits)``, ``[B, K]``."""
    if config.mixture_gradient != "gumbel":
        return Choice(choose_expert(logits.detach(), generator), None)
    gumbel = -torch.empty_like(logits).exponential_(generator=generator).log()
    relaxed = relaxed_choice(logits, gumbel, config.gumbel_temperature)
    return Choice(relaxed.detach().argmax(-1), relaxed)


def weights_loss(
    config: MixtureConfig, logits: Tensor, best: Tensor, value: Tensor, choice: Choice, relaxed_value: Callable[[Tensor], Tensor]
) -> Tensor:
    """What the weights descend, a scalar.

    Args:
        config: says which of the three.
        logits: ``[B, K]``; carries the gradient.
        best: int64 ``[B]``, the expert whose action is the best.
        value: ``[B, K]``, what an action of every expert is worth; a constant.
        choice: see :func:`draw_choice`.
        relaxed_value: from a relaxed choice ``[B, K]`` to what the action in between is worth, ``[B]``; the gradient flows through it.
    """
    if config.mixture_gradient == "frequency":
        return frequency_loss(logits, best)
    if config.mixture_gradient == "score":
        return score_loss(logits, choice.drawn, value)
    assert choice.relaxed is not None
    return -relaxed_value(choice.relaxed).mean()


def mean_action(choice: Tensor, action: Tensor) -> Tensor:
    """Actions ``[B, K, D]`` of all experts, averaged by a choice ``[B, K]``: ``[B, D]``."""
    return (choice.unsqueeze(-1) * action).sum(-2)


def evaluation_chooser(config: MixtureConfig, streams: Streams, updates: int) -> torch.Generator | None:
    """What draws the expert of deterministic actions in an evaluation; None takes the likeliest."""
    if config.deterministic == "likeliest":
        return None
    return torch.Generator().manual_seed(derive_seed(streams.seed, "evaluation experts", updates))
