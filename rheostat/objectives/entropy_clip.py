"""The Entropy-Clip Rule: the direction in which a clipped policy-gradient update moves the entropy, and the part that the clip removes.

For one context with logits z, policy pi = softmax(z), entropy H, and X = 1 where the clip keeps an action's gradient:

    gradient of the clipped surrogate       d/dz_a = pi_a (A_a X_a + C),   C = -sum_y pi_y A_y X_y       (as r_y pi_old(y) = pi_y)
    gradient of the entropy                 dH/dz_a = -pi_a (log pi_a + H)
    so to first order in the step           dH = -Cov_{a ~ pi}(log pi_a, dz_a)
    natural gradient, dz = eta (A X + C)    dH = -eta Cov_pi(log pi, A X) = -eta E_pi[ (log pi + H) A X ]

The last line is the form printed in the paper (BAPO, arXiv 2510.18927); a plain gradient step puts another pi into the covariance. Read
it so: keeping an unlikely action (log pi < -H) of positive advantage raises the entropy, keeping an unlikely one of negative advantage
lowers it. The right-hand side needs only the sampled action and the entropy of its distribution, so it can be estimated without bias
from a batch (:func:`entropy_drift`), for the gradients that were kept and for those that were cut. The derivation and the estimator are
this library's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheostat.masking import masked_mean, require_same_shape, select


@dataclass(frozen=True, eq=False)
class ClippedGradient:
    """The clipped surrogate of whole contexts, ``[..., V]`` but for the constant."""

    kept: Tensor
    """Bool: X, actions whose gradient the clip keeps."""
    constant: Tensor
    """C, ``[...]``."""
    natural: Tensor
    """A X + C: direction of a natural-gradient step in the logits (up to a constant, which softmax ignores)."""
    gradient: Tensor
    """pi (A X + C): derivative with respect to the logits."""


def clipped_gradient(logits: Tensor, advantage: Tensor, ratio: Tensor, *, low: float, high: float) -> ClippedGradient:
    """Gradient of ``sum_y pi_old(y) min(r A, clip(r, low, high) A)`` with respect to the logits, for whole distributions.

    Args:
        logits: ``[..., V]`` of the policy.
        advantage, ratio: of every action, the same shape; the ratio to the old policy is a fact about the actions.
        low, high: bounds of the ratio.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logits=logits, advantage=advantage, ratio=ratio)
    policy = torch.softmax(logits, -1)
    kept = ~(((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low)))
    worth = advantage * kept
    constant = -(policy * worth).sum(-1)
    natural = worth + constant.unsqueeze(-1)
    return ClippedGradient(kept, constant, natural, policy * natural)


def softmax_entropy(logits: Tensor) -> Tensor:
    """Entropy ``[...]`` of softmax distributions ``[..., V]``, in nats."""
    logp = torch.log_softmax(logits, -1)
    return -(logp.exp() * logp).sum(-1)


def entropy_change(logits: Tensor, step: Tensor) -> Tensor:
    """First-order change of the entropy ``[...]`` when the logits move by ``step`` ``[..., V]``: ``-Cov_pi(log pi, step)``, in nats."""
    require_same_shape(logits=logits, step=step)
    logp = torch.log_softmax(logits, -1)
    policy = logp.exp()
    centred = logp - (policy * logp).sum(-1, keepdim=True)
    return -(policy * centred * step).sum(-1)


def entropy_drift(
    logp: Tensor, entropy: Tensor, advantage: Tensor, ratio: Tensor, clipped: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The drift of the entropy by a batch of sampled actions: ``-E_pi[(log pi + H) A X]`` and the same of the clipped ones, ``1 - X``.

    Positive raises the entropy. Per unit of the size of a natural-gradient step, in nats per action; compare the two numbers with each
    other, not with the entropy. Unbiased where the ratio is that of the policy to the sampler.

    Args:
        logp: log-prob of the sampled action under the policy, any shape.
        entropy: of the distribution it comes from, the same shape, nats.
        advantage, ratio: the same shape.
        clipped: bool, the same shape: actions whose gradient the clip cuts.
        mask: bool, the same shape; masked entries may be NaN.

    Returns:
        (kept, cut), two scalars; their sum is what an unclipped update would do.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logp=logp, entropy=entropy, advantage=advantage, ratio=ratio, clipped=clipped, mask=mask)
    push = -ratio.detach() * (logp + entropy).detach() * advantage
    return masked_mean(select(push, ~clipped), mask), masked_mean(select(push, clipped), mask)
