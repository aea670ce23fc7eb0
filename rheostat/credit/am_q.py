"""AM-Q: offline evaluation of a policy by a critic of the data, over the states that the policy visits in a learned model (Uni-O4)."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_sum, require_same_shape


@torch.no_grad()
def am_q_score(q: Tensor, alive: Tensor) -> Tensor:
    """Mean of Q(s, a) over all visited pairs with equal weights, so long episodes count more than short ones.

    Q is that of the policy that made the data, so this is not the value of the evaluated policy: it measures one step of improvement
    on the states that the evaluated policy visits.

    Args:
        q: ``[..., H, N]`` of H steps of N imagined episodes; may be NaN where not alive.
        alive: bool, the same shape.

    Returns:
        ``[...]``.

    Raises:
        RheostatError: different shapes, or nothing visited.
    """
    require_same_shape(q=q, alive=alive)
    visited = alive.flatten(-2).sum(-1)
    if bool((visited == 0).any()):
        raise RheostatError("AM-Q averages over imagined steps, and there are none.")
    return masked_sum(q.flatten(-2), alive.flatten(-2), -1) / visited


def improved(score: Tensor, best: Tensor) -> Tensor:
    """Which members may replace their old policy: those with a score strictly above their best so far; bool ``[K]``.

    Scores on fresh start states are noisy, and the maximum of several noisy numbers is too large, so replacements become rarer with time.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(score=score, best=best)
    return score > best
