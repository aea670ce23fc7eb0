"""Returns and advantages from rewards and values. Time is the last dimension, ``[..., T]``; rows are independent.

Three facts stay apart: ``terminated`` cuts the bootstrap and the chain, ``truncated`` cuts only the chain (the value of the true final
observation is still worth bootstrapping from), and ``next_value`` is the value of the *true* successor, which at an episode's end is not the
value of the next row entry. Masked steps are skipped: what comes after them passes through. Their own outputs mean nothing.

The form with ``episode_starts`` (Stable-Baselines3, CleanRL) is the same function: ``next_value`` is the value of the next entry (the last
observation's at the end) and ``terminated`` is ``episode_starts`` of the next entry (the last done at the end).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.credit.recurrence import reverse_recurrence
from rheostat.masking import require_same_shape


def _continuing(terminated: Tensor, truncated: Tensor, bootstrap_on_truncation: bool) -> tuple[Tensor, Tensor]:
    """(is there something to bootstrap from, does the chain go on), bool."""
    done = terminated | truncated
    return ~(terminated if bootstrap_on_truncation else done), ~done


@torch.no_grad()
def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    lam: float,
    mask: Tensor | None = None,
    bootstrap_on_truncation: bool = True,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016).

    ``delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)`` and ``A_t = delta_t + gamma lam (1 - done_t) A_{t+1}``.

    Args:
        reward: ``[..., T]`` float.
        value: V(s_t), the same shape.
        next_value: V(s'_t) of the true successor, the same shape; ignored where terminated.
        terminated: bool, the same shape.
        truncated: bool, the same shape.
        gamma: discount, a number or a tensor of that shape.
        lam: 0 is one-step TD, 1 is Monte Carlo minus the baseline.
        mask: bool, the same shape; masked steps are skipped and may hold NaN.
        bootstrap_on_truncation: False treats time limits as deaths, as CleanRL and the PROPS code do.

    Returns:
        ``(advantage, value_target)`` with ``value_target = advantage + value``, both constants of that shape.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(reward=reward, value=value, next_value=next_value, terminated=terminated, truncated=truncated, mask=mask)
    bootstraps, continues = _continuing(terminated, truncated, bootstrap_on_truncation)
    delta = reward + gamma * next_value.masked_fill(~bootstraps, 0.0) - value
    advantage = reverse_recurrence(delta, gamma * lam * continues, mask)
    return advantage, advantage + value
