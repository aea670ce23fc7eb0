"""Preference strengths: how likely one answer is better than another, from what a judge said of some pairs of them.

With ``q_i`` the probability that answer i beats a common baseline:

| form | p_ij, the probability that i beats j |
|---|---|
| composed | ``sigmoid(logit q_i - logit q_j)`` with q clipped to [c, 1 - c]: the Bradley-Terry model whose comparisons the judge saw |
| difference | ``1/2 + (q_i - q_j) / 2``: q as the mean preference of IPO |
| hard | 1 where ``q_i > q_j``, 0 where it is smaller; equal ones make no pair |

All hold ``p_ij = 1 - p_ji``. Strengths are constants of double precision: in half precision the tail ``1 - p`` is lost.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Form = Literal["composed", "difference", "hard"]


def strengths(q: Tensor, form: Form, clip: float = 0.02) -> Tensor:
    """Strengths between all answers of a group, from their strengths against one baseline.

    Args:
        q: ``[X, K]`` probabilities; NaN where the judge said nothing.
        form: see the table of the module.
        clip: of q, for the composed form, in (0, 1/2).

    Returns:
        ``[X, K, K]``, entry ``i, j`` for "i beats j"; NaN where either is unknown, and where two equal ones make no pair.
    """
    q = q.detach()
    first, second = q.unsqueeze(-1), q.unsqueeze(-2)
    if form == "composed":
        logit = q.clamp(clip, 1 - clip).logit()
        return (logit.unsqueeze(-1) - logit.unsqueeze(-2)).sigmoid()
    if form == "difference":
        return 0.5 + 0.5 * (first - second)
    told = (first != second) & ~first.isnan() & ~second.isnan()
    return torch.where(told, (first > second).to(q.dtype), math.nan)


def ranking(q: Tensor) -> Tensor:
    """``[X, K]`` int64: answers from the strongest to the weakest; of equal ones the first stays first, and unknown ones come last."""
    return q.nan_to_num(-math.inf).argsort(dim=-1, descending=True, stable=True)


def middle(score: Tensor, there: Tensor) -> Tensor:
    """``[X]`` int64: the answer whose score is the median of those that are there, the lower of two; 0 where none is.

    Args:
        score: ``[X, K]`` finite.
        there: ``[X, K]`` bool.
    """
    order = torch.where(there, score, math.inf).argsort(dim=-1, stable=True)
    place = (there.sum(-1) - 1).clamp(min=0) // 2
    return order.gather(-1, place.unsqueeze(-1)).squeeze(-1)


def first_of_each(action: Tensor, mask: Tensor, size: int) -> Tensor:
    """``[B]`` bool: completions that no earlier member of their group repeats, token by token.

    Args:
        action: ``[B, T]`` int64 token ids.
        mask: ``[B, T]`` bool, tokens of completions.
        size: rows of a group, which stand next to each other.
    """
    seen: set[tuple[int, ...]] = set()
    found = []
    for row, (ids, chosen) in enumerate(zip(action, mask, strict=True)):
        seen = set() if row % size == 0 else seen
        said = tuple(ids[chosen].tolist())
        found.append(said not in seen)
        seen.add(said)
    return torch.tensor(found, dtype=torch.bool)
