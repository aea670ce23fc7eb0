"""Returns and advantages of token sequences that are one episode each, with tokens the policy did not choose (tool output) inside."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheostat.credit.recurrence import reverse_recurrence
from rheostat.credit.returns import gae
from rheostat.credit.turns import on_tokens, per_step, taken
from rheostat.masking import require_same_shape, select, standardise


def next_kept_value(value: Tensor, mask: Tensor) -> Tensor:
    """Value at the next kept token of the row, 0 after the last one.

    Args:
        value: ``[B, T]`` float; masked entries may be NaN.
        mask: ``[B, T]`` bool.

    Returns:
        ``[B, T]``.
    """
    require_same_shape(value=value, mask=mask)
    length = value.shape[-1]
    position = torch.where(mask, torch.arange(length, device=value.device), length)
    next_kept = pad(position.flip(-1).cummin(-1).values.flip(-1)[..., 1:], (0, 1), value=length)
    return pad(select(value, mask), (0, 1)).gather(-1, next_kept)


@torch.no_grad()
def token_gae(
    reward: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam: float,
    whiten: bool = True,
    fill_masked: bool = True,
) -> tuple[Tensor, Tensor]:
    """GAE over the kept tokens of each row, whitened over the batch as in verl's PPO.

    Masked tokens are skipped: the value and the running sum of what follows pass through them.

    Args:
        reward: ``[B, T]`` float; masked entries are ignored.
        value: ``[B, T]``.
        mask: ``[B, T]`` bool.
        gamma: discount per token.
        lam: trace decay.
        whiten: standardise the advantages over all kept tokens, eps 1e-8 inside the root.
        fill_masked: False leaves the values that pass through masked tokens, as verl does; only a comparison with verl needs that.

    Returns:
        ``(advantage, value_target)``, ``[B, T]``; the target is the advantage before whitening plus the value.

    Raises:
        RheostatError: different shapes.
    """
    never = torch.zeros_like(mask)
    advantage, target = gae(reward, value, next_kept_value(value, mask), never, never, gamma=gamma, lam=lam, mask=mask)
    if whiten:
        return standardise(advantage, mask, eps=1e-8, eps_inside_root=True, fill_masked=fill_masked), target
    return (select(advantage, mask) if fill_masked else advantage), target


@torch.no_grad()
def turn_gae(reward: Tensor, value: Tensor, step: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """GAE over the turns of a conversation, whitened over the tokens of the batch.

    Args:
        reward: ``[B, T]`` of tokens; a turn has earned the sum over its own.
        value: ``[B, T]`` before each token; a turn's value is that of its first one.
        step: ``[B, T]`` int64, the turn of every token from 1 on, 0 for tokens of others.
        gamma: discount per turn.
        lam: trace decay.

    Returns:
        ``(advantage, value_target)``, ``[B, T]``, the same for all tokens of a turn and 0 elsewhere.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(reward=reward, value=value, step=step)
    first = (step > 0) & (step > pad(step.cummax(1).values, (1, 0))[:, :-1])
    values, there = per_step(select(value, first), step), taken(step)
    never = torch.zeros_like(there)
    following = pad(values, (0, 1))[:, 1:]
    advantage, target = gae(per_step(reward, step), values, following, never, never, gamma=gamma, lam=lam, mask=there)
    return standardise(on_tokens(advantage, step), step > 0, eps=1e-8, eps_inside_root=True), on_tokens(target, step)


@torch.no_grad()
def reinforce_pp_advantage(
    reward: Tensor, mask: Tensor, *, gamma: float = 1.0, eps: float = 1e-8, reset_at_mask: bool = False
) -> tuple[Tensor, Tensor]:
    """REINFORCE++ (Hu 2025): return-to-go of token rewards, whitened over every kept token of the batch.

    Args:
        reward: ``[B, T]`` token rewards with the KL penalty in them (:func:`~rheostat.credit.token_rewards.kl_shaped_reward`).
        mask: ``[B, T]`` bool.
        gamma: discount per token.
        eps: added to the variance inside the root.
        reset_at_mask: verl's code starts the return anew before every masked token, so that tokens before a tool's output get no credit
            for what came after it. The default lets the return pass through.

    Returns:
        ``(advantage, return)``, ``[B, T]``, both 0 outside the mask.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(reward=reward, mask=mask)
    reward = select(reward, mask)
    if reset_at_mask:
        to_go = reverse_recurrence(reward, gamma * pad(mask[..., 1:], (0, 1)).to(reward.dtype))
    else:
        to_go = reverse_recurrence(reward, torch.full_like(reward, gamma), mask)
    return standardise(to_go, mask, eps=eps, eps_inside_root=True), select(to_go, mask)
