"""Steps of a conversation: the turns of the policy, of which each is one action of an agent.

A step is a number from 1 on; its tokens ``[B, T]`` carry the number, all others carry 0. Numbers of steps ``[B, S]`` stand in their order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.masking import require_same_shape, select
from rheostat.parts import Batch


def steps_of(batch: Batch, *, single_tokens: bool = False) -> Tensor:
    """``[B, T]`` int64: the step of every masked token, from the column ``turn``; 0 elsewhere.

    A completion without turns (a task of one turn, or a replayed row, whose turns nobody has kept) is one step.

    Args:
        batch: rows of tokens.
        single_tokens: every token is a step of its own.
    """
    mask = batch.rows.mask
    if single_tokens:
        return torch.where(mask, mask.cumsum(1), 0)
    turn = batch.columns.get("turn")
    return mask.long() if turn is None else torch.where(mask, turn.clamp(min=1), 0)


def per_step(values: Tensor, step: Tensor) -> Tensor:
    """Sums ``[B, S]`` of token values ``[B, T]`` over steps; what belongs to no step may be NaN. Carries the gradient.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(values=values, step=step)
    count = int(step.max()) if step.numel() else 0
    sums = values.new_zeros(len(values), count + 1)
    return sums.scatter_add(1, step, select(values, step > 0))[:, 1:]


def taken(step: Tensor) -> Tensor:
    """``[B, S]`` bool: the steps that a row has."""
    return per_step(torch.ones_like(step, dtype=torch.float32), step) > 0


def on_tokens(values: Tensor, step: Tensor) -> Tensor:
    """``[B, T]``: every token gets the value ``[B, S]`` of its step, 0 where it belongs to none."""
    return torch.cat([values.new_zeros(len(values), 1), values], 1).gather(1, step)
