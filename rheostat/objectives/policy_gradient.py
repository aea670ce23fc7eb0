"""The policy-gradient kernel: one loss that covers nearly all the policy methods, for control steps and for tokens.

``loss = aggregate( weight * clip(ratio(numerator, denominator), advantage) )``

Every part is chosen by name: the denominator and the ratio (:mod:`rheostat.objectives.ratio`), the clip rule
(:mod:`rheostat.objectives.clipping`), the weight (:mod:`rheostat.objectives.weights`) and the aggregation (:mod:`rheostat.masking`).
Regularisers (:mod:`rheostat.objectives.kl`, entropy) are separate terms that the caller adds.

Stop-gradient rule: only ``logp`` carries a gradient. The denominator, the advantage and the weight are constants, always.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rheostat import masking
from rheostat.masking import Aggregation, require_same_shape, select
from rheostat.objectives.clipping import Clip, ClipRule
from rheostat.objectives.ratio import RatioKind, combine_log_ratio


@dataclass(eq=False)
class PolicyTerms:
    """The loss of every entry, before aggregation, and its parts (detached); masked entries are 0."""

    loss: Tensor
    """The shape of ``logp``; carries the gradient. The weight is in it."""
    log_ratio: Tensor
    """Of every token, before it is clipped or combined over the row."""
    ratio: Tensor
    """As used in the loss."""
    advantage: Tensor
    clip: ClipRule
    mask: Tensor | None

    @cached_property
    def clipped(self) -> Tensor:
        """Bool: entries whose gradient the clip cuts."""
        clipped = self.clip.clipped(self._seen_by_clip(), self.advantage)
        return clipped if self.mask is None else clipped & self.mask

    @cached_property
    def outside(self) -> Tensor:
        """Bool: entries whose ratio is outside the clip's window, whatever the sign of the advantage."""
        outside = self.clip.outside(self._seen_by_clip())
        return outside if self.mask is None else outside & self.mask

    def _seen_by_clip(self) -> Tensor:
        seen_in_log_space = self.clip.log_ratio(self.log_ratio, self.advantage) is not self.log_ratio
        return self.log_ratio.exp() if seen_in_log_space else self.ratio


@dataclass(eq=False)
class PolicyLoss:
    """A scalar policy loss and its diagnostics; the diagnostics are computed when they are read, never before."""

    loss: Tensor
    """Scalar, carries the gradient."""
    terms: PolicyTerms

    @property
    def ratio(self) -> Tensor:
        """Detached ratio of every entry, as used in the loss, in the shape of ``logp``."""
        return self.terms.ratio

    @property
    def clipped(self) -> Tensor:
        """Bool, in the shape of ``logp``: entries whose gradient the clip cuts."""
        return self.terms.clipped

    @cached_property
    def clip_fraction(self) -> Tensor:
        """Share of kept entries whose gradient the clip cuts, a scalar tensor (``pg_clipfrac`` of verl)."""
        return masking.masked_mean(self.terms.clipped.float(), self.terms.mask)

    @cached_property
    def outside_fraction(self) -> Tensor:
        """Share of kept entries whose ratio is outside the window, whatever the advantage's sign; scalar (``clipfrac`` of CleanRL)."""
        return masking.masked_mean(self.terms.outside.float(), self.terms.mask)

    @cached_property
    def approx_kl(self) -> Tensor:
        """k3 estimate of KL(denominator || learner), ``mean(r - 1 - log r)`` over kept entries, a scalar tensor in nats."""
        log_ratio = self.terms.log_ratio
        return masking.masked_mean(log_ratio.exp() - 1 - log_ratio, self.terms.mask)


def policy_terms(
    logp: Tensor,
    advantage: Tensor,
    *,
    denominator_logp: Tensor | None,
    mask: Tensor | None = None,
    clip: ClipRule = Clip(),  # noqa: B008 (frozen)
    ratio: RatioKind = "token",
    log_clamp: tuple[float, float] | None = None,
    weight: Tensor | None = None,
) -> PolicyTerms:
    """The loss of every entry, in the shape of ``logp``; arguments and errors as in :func:`policy_gradient`."""
    require_same_shape(logp=logp, advantage=advantage, denominator_logp=denominator_logp, mask=mask, weight=weight)
    if logp.dtype in (torch.bfloat16, torch.float16):
        logp = logp.float()  # a float32 island: ratios near 1 have no digits left in half precision
    advantage = advantage.detach()
    if mask is not None:
        logp, advantage = select(logp, mask), select(advantage, mask)
        denominator_logp = None if denominator_logp is None else select(denominator_logp, mask)
        weight = None if weight is None else select(weight, mask)
    log_ratio = logp - (logp if denominator_logp is None else denominator_logp).detach()
    used = combine_log_ratio(clip.log_ratio(log_ratio, advantage), ratio, mask)
    if log_clamp is not None:
        used = used.clamp(*log_clamp)
    value = used.exp()
    loss = clip.loss(value, advantage, logp)
    if weight is not None:
        loss = loss * weight.detach()
    return PolicyTerms(loss, log_ratio.detach(), value.detach(), advantage, clip, mask)


def policy_gradient(
    logp: Tensor,
    advantage: Tensor,
    *,
    denominator_logp: Tensor | None,
    mask: Tensor | None = None,
    clip: ClipRule = Clip(),  # noqa: B008 (frozen)
    ratio: RatioKind = "token",
    log_clamp: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    aggregate: Aggregation = "token-mean",
    denominator: Tensor | float | None = None,
    data_parallel_size: int = 1,
) -> PolicyLoss:
    """Policy-gradient loss, to be minimised.

    | method | clip | ratio | aggregate |
    |---|---|---|---|
    | REINFORCE, A2C | ``DetachedClip()`` with ``denominator_logp=None`` | token | token-mean |
    | PPO | ``Clip(0.2, 0.2)`` | token | token-mean |
    | GRPO | ``Clip(0.2, 0.2)`` | token | sequence-mean |
    | Dr. GRPO | ``Clip(0.2, 0.2)`` | token | constant |
    | DAPO | ``Clip(0.2, 0.28)`` | token | token-mean |
    | GSPO | ``Clip(3e-4, 4e-4)`` | sequence | sequence-mean |
    | GMPO | ``LogClip(0.4, 0.4)`` | sequence | sequence-mean |
    | CISPO | ``DetachedClip(None, 0.28)`` | token | token-mean |
    | RLOO (TRL) | ``Clip(0.2, 0.2)`` | sequence-product | sequence-mean |

    Args:
        logp: log-prob of the taken action or token under the learner, ``[N]`` or ``[B, T]``; half precision is computed in float32.
        advantage: the same shape; a constant.
        denominator_logp: the same shape; a constant. None compares the learner with itself, so that the ratio is exactly 1.
        mask: bool, the same shape; masked entries of every input may be NaN. None keeps everything and costs nothing.
        clip: the clip rule of the ratio.
        ratio: per token, or one for the row.
        log_clamp: bounds of the log-ratio that is exponentiated; outside them the gradient is exactly 0. verl uses
            ``ratio.LOG_CLAMP`` for PPO and CISPO and (-inf, 10) for GSPO; the papers have none.
        weight: factor on every entry's loss after the clip; a constant (see :mod:`rheostat.objectives.weights`).
        aggregate: see :func:`rheostat.masking.aggregate`.
        denominator: divides the aggregated sum; give the count of the whole batch when the batch is split in micro-batches.
        data_parallel_size: see :func:`rheostat.masking.aggregate`.

    Returns:
        The scalar loss with lazy diagnostics.

    Raises:
        RheostatError: different shapes, or a ratio or aggregation that does not exist or needs rows of tokens.
    """
    terms = policy_terms(
        logp, advantage, denominator_logp=denominator_logp, mask=mask, clip=clip, ratio=ratio, log_clamp=log_clamp, weight=weight
    )
    loss = masking.aggregate(terms.loss, mask, aggregate, denominator=denominator, data_parallel_size=data_parallel_size)
    return PolicyLoss(loss, terms)
