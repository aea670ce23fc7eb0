"""GMPO: geometric-mean policy optimisation.

Paper: Zhao et al. 2025, arXiv 2507.20673; in verl's adaptation (``geo_mean``), the authors' own code was not read.

Equations (s = sign A, d = log ratio)
    u_it = s min(s d_it, s clip(d_it, -0.4, 0.4)),      ratio_i = exp(mean_t u_it),      loss = mean_i -A_i ratio_i

What differs from grpo: the geometric instead of the arithmetic mean over tokens, which one outlying token cannot dominate, and a clip in
log space. No KL.
Checked against: verl 0.8.0.dev (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.methods.language.grpo import GRPO, GRPOConfig, LimitName
from rheostat.objectives.ratio import RatioKind


@dataclass(frozen=True)
class GMPOConfig(GRPOConfig):
    """The paper's window."""

    ratio: RatioKind = "sequence"
    """One ratio per completion, with the gradient through the mean."""
    limit: LimitName = "log-clip"
    """Token log-ratios are clipped before they are averaged."""
    clip_low: float | None = 0.4
    """Lower width, in log space."""
    clip_high: float | None = 0.4
    """Upper width, in log space."""
    minibatches: int = 4
    """Several gradient steps per batch, without which a ratio does nothing."""
    kl_coefficient: float = 0.0
    """No KL."""


class GMPO(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = GMPOConfig
    search_refused: ClassVar[str] = "it clips log-ratios before it averages them over the completion"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}
