"""Weighted log-likelihood ``-w log p``: imitation of an expert's tokens or actions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import Aggregation, require_same_shape
from rheostat.objectives.clipping import DetachedClip
from rheostat.objectives.policy_gradient import policy_gradient


def weighted_likelihood(
    logp: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    ceiling: float | None = None,
    aggregate: Aggregation = "token-mean",
    denominator: Tensor | float | None = None,
) -> Tensor:
    """``aggregate(-w log p)``, a scalar to be minimised; the gradient with respect to a token's log-prob is ``-w`` over the denominator.

    The denominator counts tokens (or rows), never weights: weights below 1 also make the whole gradient smaller. It is the policy-gradient
    kernel with advantage 1 and the ratio of the policy to itself.

    Args:
        logp: log-prob of the demonstrated token or action under the learner, ``[N]`` or ``[B, T]``; carries the gradient.
        mask: bool, the same shape.
        weight: the same shape; a constant (see :func:`rheostat.objectives.weights.expert_weight`). None is plain maximum likelihood.
        ceiling: tokens more likely than this probability give no gradient and a constant loss; None for no ceiling.
        aggregate: see :func:`rheostat.masking.aggregate`.
        denominator: divides the aggregated sum.

    Raises:
        RheostatError: different shapes, or a ceiling that is no probability.
    """
    if ceiling is not None:
        if not 0 < ceiling <= 1:
            raise RheostatError(f"The ceiling of a likelihood is a probability above 0 and at most 1, not {ceiling}.")
        logp = logp.clamp(max=math.log(ceiling))
    return policy_gradient(
        logp,
        torch.ones_like(logp),
        denominator_logp=None,
        mask=mask,
        clip=DetachedClip(),
        weight=weight,
        aggregate=aggregate,
        denominator=denominator,
    ).loss


def squared_distance(action: Tensor, data_action: Tensor) -> Tensor:
    """``mean (mu(s) - a)^2`` over rows and dimensions, a scalar to be minimised: imitation by a deterministic policy.

    Args:
        action: ``[B, d]`` of the policy; carries the gradient.
        data_action: ``[B, d]``, a constant.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(action=action, data_action=data_action)
    return (action - data_action.detach()).square().mean()
