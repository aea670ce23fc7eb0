"""The objective of a fleet's policy: a clipped ratio of shares, a distance to a reference policy, and entropy.

    L = mean_n [ -min(rho A, clip(rho, 1 - low, 1 + high) A) ] + beta mean_n [ mean_j d_j ] - c_H mean_n [ -sum_j p_j log p_j ]

rho is the share of the chosen order over the one it was stored with. The distance is averaged over the open orders and not summed, so
that it shrinks with their number; the entropy is summed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rheostat.objectives.clipping import Clip

Direction = Literal["from-policy", "from-reference", "both"]
"""d = p log(p / q), q log(q / p), or the mean of both, with p the policy's shares and q the reference's."""


class DispatchLoss(NamedTuple):
    """The loss and its parts, scalars."""

    loss: Tensor
    policy: Tensor
    distance: Tensor
    entropy: Tensor
    clipped: Tensor
    """Share of the rows whose gradient the clip cuts."""


def distance(share: Tensor, reference: Tensor, is_open: Tensor, direction: Direction) -> Tensor:
    """Mean over the open orders of the terms of a KL divergence, ``[n]``.

    Args:
        share, reference: of orders, ``[n, O]``.
        is_open: bool ``[n, O]``, at least one of each row.
        direction: see :data:`Direction`.
    """
    p, q = (torch.where(is_open, each, 1.0) for each in (share, reference))
    log_ratio = p.log() - q.log()
    terms = {"from-policy": p * log_ratio, "from-reference": -q * log_ratio, "both": (p - q) * log_ratio / 2}[direction]
    return torch.where(is_open, terms, 0.0).sum(1) / is_open.sum(1)


def dispatch_loss(
    share: Tensor,
    reference: Tensor,
    is_open: Tensor,
    chosen: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    *,
    clip: Clip,
    beta: float,
    entropy_coefficient: float,
    direction: Direction,
) -> DispatchLoss:
    """The loss of a minibatch.

    Args:
        share: the policy's shares of orders, ``[n, O]``, with a gradient.
        reference: the reference's.
        is_open: bool ``[n, O]``.
        chosen: int64 ``[n]``, the column of the order that was taken.
        old_logp: its log-share when it was taken, ``[n]``.
        advantage: ``[n]``.
        clip: of the ratio.
        beta: weight of the distance to the reference.
        entropy_coefficient: weight of the entropy.
        direction: of the distance.
    """
    logp = share.gather(1, chosen.unsqueeze(1)).squeeze(1).log()
    ratio = (logp - old_logp).exp()
    policy = clip.loss(ratio, advantage, logp).mean()
    far = distance(share, reference, is_open, direction).mean()
    safe = torch.where(is_open, share, 1.0)
    entropy = -(safe * safe.log()).sum(1).mean()
    loss = policy + beta * far - entropy_coefficient * entropy
    return DispatchLoss(loss, policy, far, entropy, clip.clipped(ratio, advantage).to(share.dtype).mean())
