"""Clip-Cov and KL-Cov: tokens whose probability and advantage rise together take the entropy down, so a few of them are held back.

Cui et al. 2025, "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models", arXiv 2505.22617.

    Cov_t      = (log pi_t - mean log pi) (A_t - mean A)                       means over the N tokens of a gradient step
    dH         = -eta mean Cov                                                 of a natural-gradient step, to first order
    Clip-Cov   max(1, floor(share N)) tokens, drawn uniformly among those with least < Cov < most that PPO's clip keeps: loss 0
    KL-Cov     the max(1, floor(share N)) tokens of the largest Cov:           -r A + beta |log r|;  the others -r A, without a clip

The released code counts N, means and tokens of each micro-batch; here they are of the gradient step, so that its result does not depend on
how it is cut (with micro-batches that costs one more forward pass). KL-Cov holds nothing back in the first gradient step of an update:
r = 1, and |log r| has no slope there. Rounding makes r a little more or less than 1, and the released code then pays beta with whatever
sign that has; here less than 1e-4 nats are no move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_mean, select
from rheostat.objectives.clipping import Clip, NoClip
from rheostat.options import option
from rheostat.parts import Batch

CHOSEN = "held_back"
"""Bool column ``[B, T]``: the tokens that are held back in this gradient step."""


def covariance(logp: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """The share of every token in the covariance of log-probability and advantage, before the mean; 0 where masked.

    Args:
        logp: ``[B, T]``, in nats; a constant.
        advantage: ``[B, T]``; masked entries of both may be NaN.
        mask: bool ``[B, T]``.
    """
    centred = (select(each.detach(), mask) - masked_mean(each.detach(), mask) for each in (logp, advantage))
    return select(math.prod(centred, start=torch.ones(())), mask)


def count_of(share: float, tokens: int) -> int:
    """How many tokens are held back, at least one."""
    return max(1, math.floor(share * tokens))


@dataclass(frozen=True)
class CutClip(Clip):
    """PPO's clip, and no gradient at all for some tokens."""

    cut: Tensor | None = None
    """Bool, the shape of the ratio."""

    def loss(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        assert self.cut is not None
        return super().loss(ratio, advantage, logp).masked_fill(self.cut, 0.0)

    def dloss_dlogp(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        assert self.cut is not None
        return super().dloss_dlogp(ratio, advantage).masked_fill(self.cut, 0.0)

    def clipped(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        assert self.cut is not None
        return super().clipped(ratio, advantage) | self.cut


ROUNDING = 1e-4
"""Nats within which a token has not moved."""


@dataclass(frozen=True)
class HeldNear(NoClip):
    """No clip, and a price of moving some tokens away from where the update began, whichever way."""

    held: Tensor
    """Bool, the shape of the ratio."""
    coefficient: float

    def loss(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return super().loss(ratio, advantage, logp) + self.coefficient * self.held * (ratio.log().abs() - ROUNDING).clamp(min=0)

    def dloss_dlogp(self, ratio: Tensor, advantage: Tensor) -> Tensor:
        return super().dloss_dlogp(ratio, advantage) + self.coefficient * self.held * _moved(ratio.log()).sign()


def _moved(log_ratio: Tensor) -> Tensor:
    """Log-ratios, 0 within rounding."""
    return log_ratio.masked_fill(log_ratio.abs() <= ROUNDING, 0.0)


@dataclass(frozen=True)
class ClipCov:
    """PPO's clip, and some tokens of large covariance drawn to be left out."""

    kind: ClassVar[str] = "clip-cov"
    low: float = option(1.0, short="clip_low", at_least=0)
    """Lower width of the window: the ratio keeps its gradient from 1 - this."""
    high: float = option(1.0, short="clip_high", at_least=0)
    """Upper width of the window: the ratio keeps its gradient up to 1 + this."""
    share: float = option(2e-4, short="covariance_share", above=0, at_most=1)
    """Share of the tokens of a gradient step that are left out, at least one token."""
    least: float = option(1.0, short="covariance_low")
    """Tokens are drawn among those of a larger covariance than this."""
    most: float = option(5.0, short="covariance_high")
    """... and of a smaller one than this."""

    def __post_init__(self) -> None:
        if self.least >= self.most:
            raise RheostatError(
                f"covariance_low is {self.least} and covariance_high {self.most}: no token lies between them, so lower the first."
            )

    def begin(self, context: Any, logp: Tensor, batch: Batch, mask: Tensor) -> Batch:
        """The batch of a whole gradient step with a column of the tokens that are left out."""
        rows = batch.rows
        start = logp if rows.learner_logp is None else rows.learner_logp
        kept = ~Clip(self.low, self.high).clipped((select(logp, mask) - select(start, mask)).exp(), select(rows.advantage, mask))
        value = covariance(logp, rows.advantage, mask)
        able = (value > self.least) & (value < self.most) & kept & mask
        chance = torch.full(mask.shape, math.inf)
        chance[mask] = torch.rand(int(mask.sum()), generator=context.streams["clip-cov"])  # one number per token, whoever is able
        chance[~able] = math.inf
        count = min(count_of(self.share, int(mask.sum())), int(able.sum()))
        return with_chosen(batch, chance, count)

    def rule(self, batch: Batch) -> CutClip:
        """The clip rule for some rows of the step."""
        return CutClip(self.low, self.high, cut=batch.columns[CHOSEN])


@dataclass(frozen=True)
class KLCov:
    """No clip; the tokens of the largest covariance pay for every nat that they move."""

    kind: ClassVar[str] = "kl-cov"
    share: float = option(2e-3, short="covariance_share", above=0, at_most=1)
    """Share of the tokens of a gradient step that are held, at least one token (7B: 2e-3, 32B: 2e-4)."""
    coefficient: float = option(1.0, short="covariance_coefficient", above=0)
    """Price beta of a nat."""

    def begin(self, context: Any, logp: Tensor, batch: Batch, mask: Tensor) -> Batch:
        """The batch of a whole gradient step with a column of the tokens that are held."""
        value = covariance(logp, batch.rows.advantage, mask)
        return with_chosen(batch, (-value).masked_fill(~mask, math.inf), count_of(self.share, int(mask.sum())))

    def rule(self, batch: Batch) -> HeldNear:
        """The clip rule for some rows of the step."""
        return HeldNear(batch.columns[CHOSEN], self.coefficient)


def with_chosen(batch: Batch, order: Tensor, count: int) -> Batch:
    """The batch with the column of the ``count`` tokens that stand first in an order ``[B, T]``; infinite ones never do."""
    flat = order.flatten()
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.sort(stable=True).indices[:count]] = True
    return replace(batch, columns=batch.columns | {CHOSEN: (chosen & flat.isfinite()).view_as(order)})
