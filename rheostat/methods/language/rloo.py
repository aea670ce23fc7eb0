"""RLOO: REINFORCE with a leave-one-out baseline.

Paper: Ahmadian et al. 2024, "Back to Basics", arXiv 2402.14740.

Equations
    A_i  = R_i - mean of the others' R,       R_i = reward_i - beta sum_t (log pi_old - log pi_ref)
    loss = mean_i -min(ratio_i A_i, clip(ratio_i, 1 +- 0.2) A_i),       ratio_i = exp(sum_t log pi - log pi_old)

What differs from grpo: the baseline leaves the completion itself out, which keeps the gradient unbiased; no division by a deviation; the
KL is part of the reward; the whole completion is one action with one ratio (TRL's form; with one gradient step per batch it is REINFORCE).
Checked against: verl 0.8.0.dev (advantage) and TRL 1.16.0 (loss) (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig
from rheostat.objectives.ratio import RatioKind


@dataclass(frozen=True)
class RLOOConfig(GRPOConfig):
    """TRL's form."""

    advantage: Advantage = "rloo"
    """Reward minus the mean of the others."""
    ratio: RatioKind = "sequence-product"
    """The completion is one action."""
    kl_coefficient: float = 0.05
    """beta (TRL)."""
    kl_in_reward: bool = True
    """The KL is part of the reward."""


class RLOO(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = RLOOConfig
