"""Losses of a dynamics model that weigh an error by what it does to the value of the next state (VaGraM, Voelcker et al. 2022).

Throughout, an error is "predicted minus observed": its last number is that of the reward, and those before it are of the next state.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape

Form = Literal["bounded", "unbounded"]


def value_gradient_error(error: Tensor, gradient: Tensor, *, form: Form = "bounded") -> Tensor:
    """``mean_k (g_kd e_d)^2 + e_r^2`` (bounded, arXiv 2204.01464 eq. 7), or ``mean_k (g_k . e)^2 + e_r^2`` (unbounded, eq. 5).

    The squared error of the reward is added to every dimension of the state, so in the mean it weighs as much as each of them does. The
    bounded form is at least the unbounded one divided by the number of dimensions (Cauchy-Schwarz), and equals it where there is only one.

    Args:
        error: ``[..., B, D + 1]``, carries the gradient.
        gradient: ``[K, ..., B, D]``, of K value functions at the observed next state; a constant.
        form: bounded keeps the dimensions apart.

    Returns:
        ``[..., B, D]``, or ``[..., B, 1]`` of the unbounded form; at least 0.

    Raises:
        RheostatError: different shapes.
    """
    state, reward = error[..., :-1], error[..., -1:]
    require_same_shape(one_gradient=gradient[0], error=state)
    moved = gradient.detach() * state
    squared = moved.square() if form == "bounded" else moved.sum(-1, keepdim=True).square()
    return squared.mean(0) + reward.square()


def value_difference_error(predicted: Tensor, observed: Tensor, reward_error: Tensor) -> Tensor:
    """``mean_k (V_k(f) - V_k(s'))^2 + e_r^2`` (IterVAML, Farahmand 2018).

    Args:
        predicted: ``[K, ...]``, values of predicted next states, carry the gradient.
        observed: ``[K, ...]``, values of the observed ones; constants.
        reward_error: ``[...]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(predicted=predicted, observed=observed)
    return (predicted - observed.detach()).square().mean(0) + reward_error.square()


def accumulated(gradient: Tensor) -> Tensor:
    """``sum_{j <= k} g_j`` in the place of ``g_k``, ``[K, ...]``: the authors' code does not clear the gradient of the next state between
    value functions."""
    return gradient.cumsum(0)


def limited(gradient: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    """Gradients whose norm is above a quantile of the norms over the rows, scaled down to it; for every value function apart.

    Args:
        gradient: ``[K, N, D]``.
        quantile: in [0, 1]; 1 limits nothing.

    Returns:
        The gradients, and the bounds ``[K]``.

    Raises:
        RheostatError: a quantile outside its range.
    """
    if not 0 <= quantile <= 1:
        raise RheostatError(f"A quantile lies between 0 and 1, not at {quantile:g}.")
    norms = torch.linalg.vector_norm(gradient, dim=-1)
    bound = norms.quantile(quantile, dim=-1)
    factor = (bound[:, None] / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1.0)
    return gradient * factor.unsqueeze(-1), bound
