"""NFT's likelihood of right and of wrong answers, the latter under a negative policy that the positive one implies (arXiv 2505.18116).

The old policy splits as ``pi_old = r pi_plus + (1 - r) pi_minus`` with r the share of right answers to a prompt. With the learner in the
place of pi_plus, the negative policy is ``(pi_old - r pi) / (1 - r)``, so that maximum likelihood of wrong answers trains the learner, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_sum, require_same_shape, select
from rheostat.objectives.terms import TokenTerm, old_logp
from rheostat.parts import Batch, Context, Report

PromptWeight = Literal["uniform", "wrong-share", "odds"]
"""w(r): 1; 1 - r; sqrt((1 - r) / r). The released code's ``normalize`` 0, 1 and 2."""
LARGEST_LOG_RATIO = 10.0
RATES = (0.02, 0.98)
"""The rate r is clamped to these."""


def straight_through_max(x: Tensor, least: float) -> Tensor:
    """``max(x, least)`` whose derivative is 1 everywhere; any shape, and the same back."""
    return x + (x.clamp(min=least) - x).detach()


def negative_aware_terms(
    logp: Tensor,
    old_logp: Tensor,
    right: Tensor,
    rate: Tensor,
    mask: Tensor,
    *,
    negative_weight: float = 1.0,
    weight: PromptWeight = "wrong-share",
    floor: float = 1.0,
    ratio: Literal["token", "sequence"] = "token",
) -> Tensor:
    """The weighted negative log-likelihood ratio of every token, or of every row; minimise its sum.

    With R = pi / pi_old and N = (1 - r R) / (1 - r) it is ``-w(r) log R`` where the answer is right and
    ``-w(r) negative_weight log max(N, floor)`` where it is wrong, with a straight-through maximum. Log-ratios are clamped at 10 from above,
    where the gradient ends; below there is no bound, and every value is finite. At R = 1 the gradient by a token's
    log-prob is -w where the answer is right and w r / (1 - r) where it is wrong: minus GRPO's advantage with the population's deviation for
    ``odds``, minus Dr. GRPO's for ``wrong-share``.

    Args:
        logp: ``[B, T]`` under the learner; carries the gradient.
        old_logp: ``[B, T]`` under the policy that sampled, a constant.
        right: ``[B]`` 1 or 0.
        rate: ``[B]``, the share r of right answers in the row's group.
        mask: ``[B, T]`` bool.
        negative_weight: of wrong answers; 0 is rejection-sampling fine-tuning.
        weight: of the prompt.
        floor: least implicit negative likelihood ratio.
        ratio: per token, or one for the row (the product).

    Returns:
        ``[B, T]``, 0 outside the mask, or ``[B]`` for the row.

    Raises:
        RheostatError: different shapes, or a weight that does not exist.
    """
    require_same_shape(logp=logp, old_logp=old_logp, mask=mask)
    require_same_shape(right=right, rate=rate)
    if weight not in get_args(PromptWeight):
        raise RheostatError(f"Unknown weight of prompts {weight!r}: one of {', '.join(get_args(PromptWeight))}.")
    change = select(logp, mask) - select(old_logp, mask).detach()
    rate = rate.clamp(*RATES).to(logp.dtype)
    scale = {"uniform": torch.ones_like(rate), "wrong-share": 1 - rate, "odds": ((1 - rate) / rate).sqrt()}[weight]
    right = right.to(logp.dtype)
    if ratio == "token":
        rate, scale, right = rate[:, None], scale[:, None], right[:, None]
    else:
        change = masked_sum(change, mask, -1)
    change = change.clamp(max=LARGEST_LOG_RATIO)
    implied = (1 - rate * change.exp()) / (1 - rate)
    positive = -change  # not the logarithm of the exponential, which is -inf where the ratio underflows
    negative = -straight_through_max(implied, floor).log()
    terms = scale * (right * positive + negative_weight * (1 - right) * negative)
    return select(terms, mask) if ratio == "token" else terms


@dataclass(frozen=True)
class NegativeAware(TokenTerm):
    """See :func:`~rheostat.objectives.negative_aware.negative_aware_terms`."""

    weight: PromptWeight = "wrong-share"
    negative_weight: float = 1.0
    floor: float = 1.0
    ratio: Literal["token", "sequence"] = "token"
    divisor: float = 1000.0
    reads: ClassVar[Sequence[str]] = ("right", "rate")

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """A constant, as released."""
        return torch.tensor(self.divisor)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows, mask = batch.rows, self.mask(batch)
        found = negative_aware_terms(
            scores.logp,
            old_logp(scores, rows),
            batch.columns["right"],
            batch.columns["rate"],
            mask,
            negative_weight=self.negative_weight,
            weight=self.weight,
            floor=self.floor,
            ratio=self.ratio,
        )
        return found.sum() / denominator, Report()
