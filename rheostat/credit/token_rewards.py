"""Rewards of rows turned into rewards of tokens, and penalties on length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_sum, require_same_shape, select


def reward_at_last_token(reward: Tensor, mask: Tensor) -> Tensor:
    """The row's reward on its last kept token, 0 on all others; an empty row has nowhere to put it.

    Args:
        reward: ``[B]`` float.
        mask: ``[B, T]`` bool.

    Returns:
        ``[B, T]``.

    Raises:
        RheostatError: as many rewards as rows are not given.
    """
    if reward.shape != mask.shape[:-1]:
        raise RheostatError(f"One reward per row is needed: rewards {list(reward.shape)}, mask {list(mask.shape)}.")
    last = mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)
    return select(reward.unsqueeze(-1).expand(mask.shape), last)


@torch.no_grad()
def kl_shaped_reward(reward: Tensor, old_logp: Tensor, reference_logp: Tensor, mask: Tensor, *, coefficient: float) -> Tensor:
    """Token rewards of PPO and REINFORCE++: ``-coefficient k1_t``, plus the row's reward at its last kept token.

    The KL is of the policy that *started* the update (``old_logp``), never of the one being optimised, and is whitened together with the
    reward; a KL in the loss is neither.

    Args:
        reward: ``[B]`` float.
        old_logp: ``[B, T]`` under the learner at the start of the update.
        reference_logp: ``[B, T]`` under the frozen reference.
        mask: ``[B, T]`` bool.
        coefficient: the KL penalty, 0 or more.

    Returns:
        ``[B, T]``, 0 outside the mask.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(old_logp=old_logp, reference_logp=reference_logp, mask=mask)
    return reward_at_last_token(reward, mask) - coefficient * select(old_logp - reference_logp, mask)


@torch.no_grad()
def kl_penalised_outcome(reward: Tensor, old_logp: Tensor, reference_logp: Tensor, mask: Tensor, *, coefficient: float) -> Tensor:
    """Row rewards of RLOO in TRL: ``R_i - coefficient sum_t k1_t``, before the leave-one-out baseline.

    Args and errors as in :func:`kl_shaped_reward`.

    Returns:
        ``[B]``.
    """
    require_same_shape(old_logp=old_logp, reference_logp=reference_logp, mask=mask)
    return reward - coefficient * masked_sum(old_logp - reference_logp, mask, -1)


def overlong_penalty(length: Tensor, *, max_length: int, buffer: int, factor: float = 1.0) -> Tensor:
    """DAPO's soft overlong punishment: 0 up to ``max_length - buffer``, then linear down to ``-factor`` at ``max_length``.

    Args:
        length: number of *kept* tokens (never a span that counts tool output), any shape.
        max_length: longest completion.
        buffer: width of the ramp, more than 0.
        factor: size of the penalty at ``max_length``.

    Returns:
        Float, the shape of ``length``, in [-factor, 0] for lengths up to ``max_length``; add it to the reward.

    Raises:
        RheostatError: a buffer that is not in (0, max_length].
    """
    if not 0 < buffer <= max_length:
        raise RheostatError(f"The overlong buffer must be in (0, max_length]: buffer {buffer}, max_length {max_length}.")
    excess = length - (max_length - buffer)
    return (-(excess / buffer) * factor).clamp(max=0.0)


def cosine_length_reward(
    right: Tensor,
    length: Tensor,
    *,
    max_length: int,
    correct: tuple[float, float] = (1.0, 2.0),
    wrong: tuple[float, float] = (-10.0, 0.0),
    exceed: float = -10.0,
    margin: int = 16,
) -> Tensor:
    """A reward that goes with the length of a completion along half a cosine (Yeo et al. 2025, arXiv 2502.03373).

    Of right completions the shortest earn most, of wrong ones the longest. Those that come as near to the limit as ``margin`` earn
    ``exceed``, right or wrong.

    Args:
        right: bool, any shape.
        length: tokens of the completions, of the same shape.
        max_length: longest completion.
        correct: least and most that a right completion earns.
        wrong: the same of a wrong one.
        exceed: see above.
        margin: in tokens.

    Returns:
        Float, the shape of ``length``.

    Raises:
        RheostatError: different shapes, or a range whose ends are exchanged.
    """
    require_same_shape(right=right, length=length)
    for name, (least, most) in (("right", correct), ("wrong", wrong)):
        if least > most:
            raise RheostatError(f"A {name} completion earns at least {least:g} and at most {most:g}: exchange the two.")
    share = 0.5 * (1 + torch.cos(math.pi * length / max_length))  # 1 for the shortest, 0 for the longest
    mine = correct[0] + (correct[1] - correct[0]) * share
    theirs = wrong[1] + (wrong[0] - wrong[1]) * share
    return torch.where(length + margin >= max_length, exceed, torch.where(right, mine, theirs))
