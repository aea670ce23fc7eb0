"""KL-Convex: one KL penalty towards two anchors, a base model and the policy before the last update (ReMix, arXiv 2507.06892).

    penalty = share * KL(policy, base) + (1 - share) * KL(policy, previous)

It starts as the usual penalty (share 1) and moves part of the weight from where training began to where it just was, so that a policy
that keeps improving is held back less by its start and damped more in its steps.
"""

from __future__ import annotations

import math

from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.kl import KLEstimator, categorical_kl, kl_estimate


def convex_share(step: int, *, start: int = 50, interval: int = 10, drop: float = 0.1, floor: float = 0.5) -> float:
    """Weight of the base model in step ``step`` (counted from 1): ``max(1 - drop * ceil(max(step - start, 0) / interval), floor)``.

    1 until ``start``, then ``drop`` less at the beginning of every ``interval`` steps, never below ``floor``. The defaults are the paper's.

    Raises:
        RheostatError: an interval below 1, a negative drop, or a floor outside [0, 1].
    """
    if interval < 1 or drop < 0 or not 0 <= floor <= 1:
        raise RheostatError(
            f"The share of the base model falls by {drop} every {interval} steps down to {floor}: the drop must be at least 0, the "
            "interval at least 1 and the floor in [0, 1]."
        )
    return max(1.0 - drop * math.ceil(max(step - start, 0) / interval), floor)


def kl_convex(
    logp: Tensor,
    base_logp: Tensor,
    previous_logp: Tensor | None,
    *,
    share: float,
    estimator: KLEstimator = "k3",
    mask: Tensor | None = None,
) -> Tensor:
    """Per-entry estimate from sampled tokens, in nats; the paper does not say which estimator it uses.

    Args:
        logp: log-prob of the sampled token under the learner, any shape; carries the gradient.
        base_logp, previous_logp: the same under the two anchors; constants. The second may be None where ``share`` is 1.
        share: weight of the base model, in [0, 1].
        estimator: see :mod:`rheostat.objectives.kl`.
        mask: bool, the same shape; masked entries may be NaN and give 0.

    Raises:
        RheostatError: a share outside [0, 1], a missing anchor, different shapes or an unknown estimator.
    """
    _check_share(share)
    base = kl_estimate(logp, base_logp, estimator, mask=mask)
    if share == 1:
        return base
    if previous_logp is None:
        raise RheostatError(
            f"The share of the base model is {share:g}: the rest needs previous_logp, of the policy before the last update."
        )
    return share * base + (1 - share) * kl_estimate(logp, previous_logp, estimator, mask=mask)


def exact_kl_convex(logits: Tensor, base_logits: Tensor, previous_logits: Tensor, *, share: float) -> Tensor:
    """The exact penalty of whole distributions ``[..., V]``, ``[...]`` in nats; only ``logits`` carries a gradient.

    Raises:
        RheostatError: a share outside [0, 1], or different shapes.
    """
    _check_share(share)
    anchors = ((share, base_logits), (1 - share, previous_logits))
    first, second = (weight * categorical_kl(logits, anchor.detach()) for weight, anchor in anchors)
    return first + second


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise RheostatError(f"The share of the base model is {share}: it must lie in [0, 1].")
