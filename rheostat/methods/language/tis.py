"""TIS: truncated importance sampling between the sampler and the learner.

Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (blog), as in verl 0.8.0.dev.

Equation
    loss = GRPO's token loss x sg[ min( pi_old^learner(y_t) / pi^sampler(y_t), C ) ],       C = 2

What differs from grpo: the sampler's log-probabilities (another kernel, another precision, or older weights) are corrected by a
constant, capped weight after the clip; ``sampler_correction=sequence`` uses one weight per completion. Tokens weigh equally, the clip is
DAPO's, no KL.
Checked against: verl 0.8.0.dev and TRL 1.16.0 (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, GRPOConfig


@dataclass(frozen=True)
class TISConfig(GRPOConfig):
    """verl's cap."""

    sampler_correction: Literal["none", "token", "sequence"] = "token"
    """A weight per token."""
    clip_high: float | None = 0.28
    """Clip-higher."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""
    kl_coefficient: float = 0.0
    """No KL."""


class TIS(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = TISConfig
