"""Lp-Reg's protection of rare tokens: the least likely ones of wrong answers are pulled up to a proxy of the policy (arXiv 2510.03222)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.masking import masked_mean
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl import kl_estimate
from rheostat.objectives.terms import Kernel, PolicyGradient, old_logp
from rheostat.parts import BEGUN, Batch, Context, Report

LARGEST_PULL = 10.0
"""The k3 estimate is clamped here, and beyond it there is no gradient."""
Selection = Literal["step", "micro-batch"]
"""The share is of all wrong answers of a gradient step; or of those of each micro-batch, as released."""


def rarest_below(logp: Tensor, among: Tensor, share: float) -> float:
    """The log-probability below which the least likely share of some tokens lies.

    Their number is ``max(1, floor(share * n))``, and a single one is none at all, as in the released code. The result lies halfway between
    the last token that is taken and the first that is not, so that rounding changes no assignment.

    Args:
        logp: any shape, in nats.
        among: bool, the same shape.
        share: in [0, 1].

    Returns:
        -inf where none is taken, inf where all are.
    """
    values = logp[among].sort().values
    count = math.floor(share * len(values))
    if count < 2:
        return -math.inf
    return math.inf if count == len(values) else float((values[count - 1] + values[count]) / 2)


@dataclass(frozen=True)
class ProtectedGradient(PolicyGradient):
    """The clipped surrogate; protected tokens are not clipped, and are pulled to the proxy.

    Protected are the least likely ``share`` of the tokens with a negative advantage, where the proxy gives them more than the policy does.
    """

    clip: Clip = Clip()
    clamp_log_ratio: bool = False
    share: float = 0.01
    pull: float = 1.0
    selection: Selection = "step"
    reads: ClassVar[Sequence[str]] = ("advantage", "proxy_logp")

    @property
    def needs_whole_step(self) -> bool:
        """Whether the term must see all rows of a gradient step before its micro-batches."""
        return self.selection == "step"

    def begin(self, context: Context, logp: Tensor, batch: Batch) -> Batch:
        """All rows of a gradient step with the threshold of rare tokens, from their present log-probabilities ``[B, T]``."""
        return replace(batch, facts=batch.facts | {"rare_below": self.rare_below(logp, batch)})

    def rare_below(self, logp: Tensor, batch: Batch) -> float:
        """The log-probability below which tokens of wrong answers are rare."""
        return rarest_below(logp.detach(), self.wrong(batch), self.share)

    def wrong(self, batch: Batch) -> Tensor:
        """``[B, T]`` bool: tokens of wrong answers."""
        return self.mask(batch) & (batch.rows.advantage < 0)

    def protected(self, logp: Tensor, batch: Batch) -> Tensor:
        """``[B, T]`` bool: tokens that are pulled."""
        return self.rare(logp, batch) & (logp.detach() < batch.columns["proxy_logp"])

    def rare(self, logp: Tensor, batch: Batch) -> Tensor:
        """``[B, T]`` bool: the least likely tokens of wrong answers."""
        below = batch.facts["rare_below"] if self.selection == "step" else self.rare_below(logp, batch)
        return self.wrong(batch) & (logp.detach() < below)

    def kernel(self, scores: Any, batch: Batch) -> Kernel:
        """The window of a protected token has no bounds."""
        protected = self.protected(scores.logp, batch)
        low, high = (torch.where(protected, math.inf, torch.as_tensor(bound)) for bound in (self.clip.low, self.clip.high))
        clip = replace(self.clip, low=low, high=high)
        return {"denominator_logp": old_logp(scores, batch.rows), "clip": clip, "log_clamp": None}

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        if self.needs_whole_step and not batch.facts.get(BEGUN):  # the batch is the whole step
            batch = self.begin(context, scores.logp, batch)
            batch = replace(batch, facts=batch.facts | {BEGUN: True})
        loss, report = super().__call__(scores, batch, denominator, context)
        protected, proxy = self.protected(scores.logp, batch), batch.columns["proxy_logp"]
        pull = self.pull * self.reduce(kl_estimate(scores.logp, proxy, mask=protected, value_clamp=LARGEST_PULL), batch, denominator)
        rare = self.rare(scores.logp, batch)
        report.means["meter/protected_share"] = masked_mean(protected.float(), self.mask(batch))
        report.means["meter/noise_share"] = masked_mean((rare & ~protected).float(), self.mask(batch))
        report.sums["proxy_pull"] = pull.detach()
        return loss + pull, report
