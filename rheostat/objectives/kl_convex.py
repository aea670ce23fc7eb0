"""KL-Convex: one KL penalty towards two anchors, a base model and the policy before the last update (ReMix, arXiv 2507.06892).

    penalty = share * KL(policy, base) + (1 - share) * KL(policy, previous)

It starts as the usual penalty (share 1) and moves part of the weight from the initial policy to the last one, so that a policy
that keeps improving is held back less by its start and damped more in its steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.kl import KLEstimator, categorical_kl, kl_estimate
from rheostat.objectives.terms import TokenTerm
from rheostat.options import option
from rheostat.parts import Batch, Context, Report


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
    """Per-entry estimate from sampled tokens, in nats; the paper does not state which estimator it uses.

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


# --- as parts ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvexSchedule:
    """lambda(k), the weight of the base model in KL-Convex; steps count from 1."""

    start: int = option(50, short="convex_start", at_least=0)
    """Last step at which the base model has all the weight of the KL."""
    interval: int = option(10, short="convex_interval", at_least=1)
    """Steps between two drops of it."""
    drop: float = option(0.1, short="convex_drop", share=True)
    """Size of a drop."""
    floor: float = option(0.5, short="convex_floor", share=True)
    """Least weight of the base model."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that have no effect, and why."""
        if not self.drop:
            return dict.fromkeys(("start", "interval", "floor"), "convex_drop is 0, so the weight never falls; leave it alone")
        why = "convex_floor is 1, so the weight never falls; leave it alone"
        return dict.fromkeys(("start", "interval", "drop"), why) if self.floor == 1 else {}

    @property
    def falls(self) -> bool:
        """Whether there is ever a second anchor."""
        return self.drop > 0 and self.floor < 1

    def at(self, update: int) -> float:
        """The weight in an update, which is counted from 0."""
        return convex_share(update + 1, start=self.start, interval=self.interval, drop=self.drop, floor=self.floor)


@dataclass(frozen=True)
class KLConvex(TokenTerm):
    """The KL to the base model and to the policy one update ago, in the proportion of a schedule."""

    schedule: ConvexSchedule = ConvexSchedule()
    estimator: KLEstimator = "k3"

    @property
    def reads(self) -> Sequence[str]:  # type: ignore[override]
        """Log-probabilities of the anchors."""
        return ("reference_logp", "previous_logp") if self.schedule.falls else ("reference_logp",)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows, mask = batch.rows, self.mask(batch)
        share = self.schedule.at(context.updates)
        kl = kl_convex(scores.logp, rows.reference_logp, rows.previous_logp, share=share, estimator=self.estimator, mask=mask)
        value = self.reduce(kl, batch, denominator)
        return value, Report(sums={"kl_reference": value.detach()})
