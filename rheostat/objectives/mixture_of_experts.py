"""Losses of the weights of a mixture of experts. Sampling an index has no derivative; there are three ways around it:

| way | gradient of the weights | needs |
|---|---|---|
| frequency (PMOE, Ren et al. 2021) | of a regression on which expert's action is the best | the critic's value of one action per expert |
| Gumbel (Jang et al. 2017, Maddison et al. 2017) | straight through a relaxed choice, biased | the critic's gradient by the action |
| score (Williams 1992) | of the expected value, unbiased | the critic's value of one action per expert |

The frequency is that of *being* the best and not the expected value, so its fixed point ``w_k = P(k is the best)`` stays inside the simplex
where experts tie, and an expert that is seldom the best is seldom used. An action per expert is one row ``[B, K]`` of values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rheostat import masking
from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape, select
from rheostat.objectives.clipping import NoClip
from rheostat.objectives.kl import straight_through
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.temporal_difference import counted, weighted


def best_expert(value: Tensor) -> Tensor:
    """Index ``[B]`` of the expert with the largest value ``[B, K]``; the first of those that tie, so that the result is always the same."""
    return value.detach().argmax(-1)


def frequency_loss(logits: Tensor, best: Tensor, *, weight: Tensor | None = None, denominator: Tensor | float | None = None) -> Tensor:
    """Squared distance of the mixture's weights from one-hot of the best expert, mean over rows *and* experts; a scalar (PMOE).

    A mean over experts, as the authors' code has it: the sum over experts would be K times as large.

    Args:
        logits: ``[B, K]``; the weights are their softmax. Carries the gradient.
        best: int64 ``[B]``, see :func:`best_expert`.
        weight: ``[B]``, a constant; rows of weight 0 may hold NaN.
        denominator: divides the sum over rows; None is the number of rows.

    Raises:
        RheostatError: different numbers of rows.
    """
    require_same_shape(logit_rows=logits[:, 0], best=best, weight=weight)
    kept = counted(weight)
    error = select(logits, None if kept is None else kept.unsqueeze(-1)).softmax(-1) - one_hot(best, logits.shape[-1])
    return masking.aggregate(weighted(error.square().mean(-1), weight), None, denominator=denominator)


def relaxed_choice(logits: Tensor, gumbel: Tensor, temperature: float) -> Tensor:
    """A choice of experts drawn from ``softmax(logits)`` as a one-hot ``[B, K]`` whose gradient is that of ``softmax((logits + gumbel) /
    temperature)``: straight-through Gumbel-softmax.

    Args:
        logits: ``[B, K]``; carries the gradient.
        gumbel: ``[B, K]``, standard Gumbel noise: ``-log`` of standard exponential draws.
        temperature: above 0. Small ones are closer to the choice that was made and make larger gradients.

    Raises:
        RheostatError: different shapes, or a temperature that is not above 0.
    """
    require_same_shape(logits=logits, gumbel=gumbel)
    if not temperature > 0:
        raise RheostatError(f"The temperature of a relaxed choice is {temperature}: it must be above 0.")
    soft = ((logits + gumbel) / temperature).softmax(-1)
    return straight_through(one_hot(soft.argmax(-1), logits.shape[-1]).to(soft.dtype), soft)


def score_loss(logits: Tensor, drawn: Tensor, value: Tensor, *, denominator: Tensor | float | None = None) -> Tensor:
    """``-mean log w_k (Q_k - sum_j w_j Q_j)`` of an expert k drawn from the weights: their score function, with the expected value as
    baseline. A scalar; in expectation over the draw its gradient is minus that of ``mean sum_j w_j Q_j``.

    Args:
        logits: ``[B, K]``; carries the gradient.
        drawn: int64 ``[B]``, drawn from ``softmax(logits)``.
        value: ``[B, K]``, Q of an action of every expert; a constant.
        denominator: divides the sum over rows; None is the number of rows.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logits=logits, value=value)
    require_same_shape(logit_rows=logits[:, 0], drawn=drawn)
    log_weights, value, index = logits.log_softmax(-1), value.detach(), drawn.unsqueeze(-1)
    advantage = value.gather(-1, index).squeeze(-1) - (log_weights.detach().exp() * value).sum(-1)
    return policy_gradient(
        log_weights.gather(-1, index).squeeze(-1), advantage, denominator_logp=None, clip=NoClip(), denominator=denominator
    ).loss


@torch.no_grad()
def expert_shares(logits: Tensor, best: Tensor | None = None) -> dict[str, float]:
    """Metrics of a mixture's weights, for the log.

    Args:
        logits: ``[B, K]``.
        best: int64 ``[B]``.

    Returns:
        ``weight_entropy``: of the weights, mean over rows, nats (log K when every expert is as likely). ``share_k``: mean weight of expert
        k. ``best_k``: share of rows in which it is the best (only with ``best``).
    """
    log_weights = logits.log_softmax(-1)
    weights = log_weights.exp()
    found = {"weight_entropy": -(weights * log_weights).sum(-1).mean().item()}
    found |= {f"share_{k}": share for k, share in enumerate(weights.mean(0).tolist())}
    if best is not None:
        counts = torch.bincount(best, minlength=logits.shape[-1]) / len(best)
        found |= {f"best_{k}": share for k, share in enumerate(counts.tolist())}
    return found
