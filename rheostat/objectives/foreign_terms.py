"""Terms of tokens that the present policy did not sample: an expert's, or its own of earlier updates.

Where the sampler's probability is known, it is the ratio's denominator; for an expert it is unknown, so it is set to 1, or estimated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rheostat.objectives.clipping import Clip, ClipRule, NoClip, PolicyShaping
from rheostat.objectives.policy_gradient import PolicyLoss
from rheostat.objectives.ratio import LOG_CLAMP, external_logp, mixture_logp, window_centre
from rheostat.objectives.terms import Kernel, Surrogate, old_logp
from rheostat.objectives.weights import expert_weight
from rheostat.parts import Batch, Report
from rheostat.trajectories import Source

External = Literal["mixed", "certain", "learner"]
"""The denominator of an expert token's ratio: the mean of the learner at the start of the update and an estimate of the expert; 1; that
learner alone."""
Centre = Literal["mix", "behaviour", "none"]
"""Window around the current policy and ratio to the sampler; window around 1 instead; or no ratio to the sampler at all."""


@dataclass(frozen=True)
class ExpertSurrogate(Surrogate):
    """The surrogate of an expert's tokens: the denominator of its ratio is no policy of the run, so no distance is logged."""

    def report_of(self, found: PolicyLoss, scores: Any, batch: Batch) -> Report:
        """No metrics besides the loss."""
        return Report()


@dataclass(frozen=True)
class ShapedExperts(ExpertSurrogate):
    """``- f(p) A`` with ``f(p) = p / (p + gamma)``, p the probability of an expert's token under the learner (LUFFY)."""

    gamma: float = 0.1

    def kernel(self, scores: Any, batch: Batch) -> Kernel:
        """The expert's probability is set to 1, so the ratio is p."""
        return {"denominator_logp": torch.zeros_like(scores.logp), "clip": PolicyShaping(self.gamma)}


@dataclass(frozen=True)
class ExternalExperts(ExpertSurrogate):
    """``- rho A sg[(1 - p)^gamma]`` on expert tokens: multiple importance sampling, and an advantage that explores (RL-PLUS)."""

    external: External = "mixed"
    omega: float = 0.5
    cap: float | None = None
    gamma: float = 0.5

    def kernel(self, scores: Any, batch: Batch) -> Kernel:
        """The expert's probability is estimated."""
        return {
            "denominator_logp": external_denominator(old_logp(scores, batch.rows), self.external, self.omega),
            "clip": external_clip(self.cap),
            "weight": expert_weight(scores.logp, "exploration", gamma=self.gamma),
        }


@dataclass(frozen=True)
class MixSurrogate(Surrogate):
    """The clipped surrogate, importance-weighted to the sampler and clipped around the current policy (ReMix)."""

    clip: Clip = Clip()
    correction: Centre = "mix"
    clamp_log_ratio: bool = True

    def kernel(self, scores: Any, batch: Batch) -> Kernel:
        """The sampler of stale rows is known; a fresh row's is the policy when this update began."""
        rows, clamp = batch.rows, LOG_CLAMP if self.clamp_log_ratio else None
        start = old_logp(scores, rows)
        own = (rows.source == int(Source.FRESH)) | rows.sampler_logp.isnan()
        behaviour = start if self.correction == "none" else torch.where(own, start, rows.sampler_logp)
        centre = window_centre(start, behaviour, self.mask(batch), log_clamp=clamp) if self.correction == "mix" else 1.0
        return {"denominator_logp": behaviour, "clip": replace(self.clip, centre=centre), "log_clamp": clamp}


def external_denominator(old_logp: Tensor, external: External = "mixed", omega: float = 0.5) -> Tensor:
    """Log of the denominator of an expert token's ratio: (p_old + omega) / 2 with the expert estimated, 1, or p_old.

    Args:
        old_logp: log-prob of expert tokens under the learner at the start of the update, any shape.
        external: see :data:`External`.
        omega: share of the constant in the estimate.
    """
    if external == "certain":
        return torch.zeros_like(old_logp)
    if external == "learner":
        return old_logp
    return mixture_logp([old_logp, external_logp(old_logp, flat=omega)])


def external_clip(cap: float | None) -> ClipRule:
    """Nothing, or a cap on the expert tokens' ratio whatever the sign of the advantage."""
    return NoClip() if cap is None else Clip(1.0, cap - 1.0, upper=cap)
