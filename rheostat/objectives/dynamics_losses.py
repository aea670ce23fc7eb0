"""Losses of a learned dynamics model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rheostat.masking import require_same_shape


def model_likelihood(mean: Tensor, log_variance: Tensor, target: Tensor) -> Tensor:
    """``sum_e mean [(mu - y)^2 exp(-l) + l]``: twice the negative Gaussian log-likelihood without its constant, mean over rows and
    dimensions, sum over the networks of an ensemble (PETS, Chua et al. 2018; MBPO); a scalar to be minimised.

    Args:
        mean, log_variance: ``[E, B, D]`` of every network; carry the gradient.
        target: ``[E, B, D]``, a constant.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(mean=mean, log_variance=log_variance, target=target)
    error = (mean - target.detach()).square() * (-log_variance).exp() + log_variance
    return error.mean((1, 2)).sum()


def between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``x`` limited smoothly to ``[low, high]`` by two softplus functions: log-variances stay bounded where there are no data."""
    return low + softplus(high - softplus(high - x) - low)


@torch.no_grad()
def holdout_error(mean: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of every network, ``[E, B, D]`` against ``[B, D]`` to ``[E]``."""
    require_same_shape(one_network=mean[0], target=target)
    return (mean - target).square().mean((1, 2))
