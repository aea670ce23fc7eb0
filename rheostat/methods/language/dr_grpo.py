"""Dr. GRPO: GRPO without its two normalisations.

Paper: Liu et al. 2025, "Understanding R1-Zero-Like Training", arXiv 2503.20783.

Equations
    A_i  = R_i - mean_g R                                      (no division by the group's deviation)
    loss = 1/(B L_max) sum_i sum_t -min(ratio A, clip(ratio) A)      (a constant, not the completion's length)

What differs from grpo: dividing by the deviation favours questions that are nearly always or nearly never solved; dividing by the length
favours short right and long wrong answers. Both are gone, and so is the KL. The constant is rows x longest completion allowed, as in
TRL; verl divides by L_max only (``constant_denominator``).
Checked against: verl 0.8.0.dev and TRL 1.16.0 (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig


@dataclass(frozen=True)
class DrGRPOConfig(GRPOConfig):
    """GRPO without deviation, length and KL."""

    advantage: Advantage = "mean-baseline"
    """Reward minus the group's mean."""
    aggregation: Aggregation = "constant"
    """Sum over tokens, divided by a constant."""
    kl_coefficient: float = 0.0
    """No KL."""


class DrGRPO(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = DrGRPOConfig
