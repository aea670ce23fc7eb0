"""Sampling error of a batch: how far its empirical action frequencies are from the policy it should represent, exactly for tables."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape


def visit_counts(states: Tensor, actions: Tensor, *, shape: tuple[int, int]) -> Tensor:
    """How often every state-action pair occurs.

    Args:
        states: int64 ``[N]``.
        actions: int64 ``[N]``.
        shape: number of states and of actions.

    Returns:
        int64 ``[states, actions]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(states=states, actions=actions)
    return torch.bincount(states * shape[1] + actions, minlength=shape[0] * shape[1]).view(shape)


def empirical_policy(counts: Tensor) -> Tensor:
    """Maximum-likelihood policy of a batch: counts over the state's total; a state that was never visited gets zeros.

    Args:
        counts: ``[states, actions]``, int or float.

    Returns:
        ``[states, actions]`` float (float64 for integer counts).
    """
    counts = counts if counts.is_floating_point() else counts.double()
    total = counts.sum(-1, keepdim=True)
    return counts / total.masked_fill(total == 0, 1.0)


def sampling_error_tabular(target_probs: Tensor, counts: Tensor) -> Tensor:
    """``(1/|D|) sum_{(s,a) in D} [log pi_D(a|s) - log pi_theta(a|s)]``, KL(pi_D, pi_theta) averaged over visited states.

    Exact, with pi_D the counts; unvisited states contribute nothing (Zhong et al. 2022; Corrado and Hanna, arXiv 2311.08290).

    Args:
        target_probs: pi_theta, ``[states, actions]``.
        counts: visits of every pair, the same shape.

    Returns:
        Scalar in nats, 0 or more; infinite where an action was taken that the target never takes.

    Raises:
        RheostatError: different shapes, or no data.
    """
    require_same_shape(target_probs=target_probs, counts=counts)
    counts = counts.to(target_probs.dtype)
    total = counts.sum()
    if not bool(total > 0):
        raise RheostatError("Sampling error needs data: every count is 0.")
    visited = counts > 0
    return ((empirical_policy(counts)[visited].log() - target_probs[visited].log()) * counts[visited]).sum() / total
