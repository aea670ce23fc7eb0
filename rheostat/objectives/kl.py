"""Divergences between policies: estimators from samples, straight-through combinations, and exact forms from distributions.

What an estimator's *value* estimates and what its *gradient* estimates are different questions. With x = logp - reference_logp and samples
from the learner (at another policy's samples neither column holds without importance weights):

| estimator | per entry | value estimates | gradient w.r.t. logp | expected gradient |
|---|---|---|---|---|
| k1 | x | KL(learner, reference), unbiased, can be negative | 1 | 0: no regulariser at all as a loss |
| abs | abs(x) | mean absolute log-ratio, at least the KL | sign(x) | that of no divergence |
| k2 | x^2 / 2 | KL(learner, reference) to second order, biased | x | that of KL(learner, reference), exactly |
| k3 | exp(-x) - 1 + x | KL(learner, reference), unbiased, never negative | 1 - exp(-x) | that of KL(reference, learner) |

The last column holds where an entry is a whole decision (a step of a bandit, a completion's summed log-probability). Summed over the tokens
of a completion, as language methods do, neither k2 nor k3 has the gradient of either divergence: a token's term moves the token as if what
follows did not depend on it. The study of estimators measured it one and four steps from the reference: k2 is 4 and 20 % off the gradient
of KL(learner, reference), k3 is 6 and 34 % off that of KL(reference, learner). k1 subtracted from the reward is exact there.

:func:`straight_through` joins the value of one with the gradient of another (k3 with k2 is the usual pair). Source: J. Schulman,
"Approximating KL divergence" (2020), and the derivatives above.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape, select

KLEstimator = Literal["k1", "abs", "k2", "k3"]


def kl_estimate(
    logp: Tensor,
    reference_logp: Tensor,
    estimator: KLEstimator = "k3",
    *,
    mask: Tensor | None = None,
    log_clamp: float | None = None,
    value_clamp: float | None = None,
) -> Tensor:
    """Per-entry estimate of KL(learner, reference) in nats; see the table of the module for what it and its gradient estimate.

    Args:
        logp: log-prob of the sampled action or token under the learner, any shape; carries the gradient.
        reference_logp: the same under the reference, the same shape; a constant.
        estimator: one of the table.
        mask: bool, the same shape; masked entries may be NaN and give 0.
        log_clamp: k3 only, the exponent is clamped to +- this (verl: 20; TRL: none). No gradient outside.
        value_clamp: k3 only, the value is clamped to +- this (verl: 10; TRL: none). No gradient outside.

    Returns:
        The shape of ``logp``.

    Raises:
        RheostatError: different shapes, or an estimator that does not exist. The names with a plus in verl's documentation (``k1+``,
            ``k3+``) are refused by verl's code too; write ``straight_through(k3, k2)``.
    """
    require_same_shape(logp=logp, reference_logp=reference_logp, mask=mask)
    x = select(logp, mask) - select(reference_logp, mask).detach()
    if estimator == "k1":
        return x
    if estimator == "abs":
        return x.abs()
    if estimator == "k2":
        return 0.5 * x.square()
    if estimator == "k3":
        exponent = -x if log_clamp is None else (-x).clamp(-log_clamp, log_clamp)
        k3 = exponent.exp() - 1 - exponent
        return k3 if value_clamp is None else k3.clamp(-value_clamp, value_clamp)
    raise RheostatError(
        f"Unknown KL estimator {estimator!r}: one of {', '.join(get_args(KLEstimator))}; "
        "for the value of one with the gradient of another use straight_through."
    )


def straight_through(value: Tensor, gradient: Tensor) -> Tensor:
    """A tensor with the value of ``value`` and the gradient of ``gradient``; ``straight_through(k3, k2)`` is verl's intended ``k3+``.

    Args:
        value, gradient: one shape, any.

    Returns:
        The same shape.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(value=value, gradient=gradient)
    return gradient - gradient.detach() + value.detach()


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """Exact KL(p, q) of each dimension of two diagonal Gaussians, in nats.

    ``log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2``. Sum over the last dimension for the KL of the joint action; the gradient
    flows into whichever argument carries one.

    Args:
        mean_p, log_std_p, mean_q, log_std_q: ``[..., action dimension]``, or broadcastable to it (a state-independent log-std).

    Returns:
        ``[..., action dimension]``.
    """
    return log_std_q - log_std_p + 0.5 * ((2 * (log_std_p - log_std_q)).exp() + ((mean_p - mean_q) / log_std_q.exp()).square() - 1)


def categorical_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Exact KL(p, q) of two categorical distributions, in nats.

    Args:
        logits_p, logits_q: unnormalised log-probabilities ``[..., actions]``, equal shapes; -inf in both excludes an action.

    Returns:
        ``[...]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logits_p=logits_p, logits_q=logits_q)
    logp, logq = torch.log_softmax(logits_p, -1), torch.log_softmax(logits_q, -1)
    impossible = torch.isneginf(logp)
    return (logp.exp() * (logp - logq).masked_fill(impossible, 0.0)).sum(-1)
