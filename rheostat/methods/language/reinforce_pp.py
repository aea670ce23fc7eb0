"""REINFORCE++: REINFORCE with PPO's clip and an advantage whitened over the whole batch.

Paper: Hu 2025, arXiv 2501.03262.

Equations
    r_t  = -beta (log pi_old - log pi_ref)_t + R at the last token,      return-to-go G_t = sum_{s>=t} r_s
    A_t  = (G_t - mean) / sqrt(var + 1e-8) over all tokens of the batch,       loss = token mean of the clipped surrogate

What differs from grpo: no groups (every completion may have its own prompt), the baseline is the batch, the KL is part of the token
rewards, tokens weigh equally. ``advantage=reinforce-pp-baseline`` subtracts the group's mean first (the paper's variant for several
completions per prompt).
Checked against: verl 0.8.0.dev (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig


@dataclass(frozen=True)
class ReinforcePPConfig(GRPOConfig):
    """The paper's setting; several completions per prompt are allowed."""

    advantage: Advantage = "reinforce-pp"
    """Return-to-go of token rewards, whitened over the batch."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""
    kl_coefficient: float = 0.01
    """beta."""
    kl_in_reward: bool = True
    """The KL is part of the token rewards."""


class ReinforcePP(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = ReinforcePPConfig
