"""LUFFY: learning to reason under off-policy guidance.

Paper: Yan et al. 2025, arXiv 2504.14945.

Equations
    A     = R - mean_g R,       the expert's completion is a member of the group
    on-policy tokens   -ratio A                         (no clip, as released)
    expert tokens      -f(p) A,   f(p) = p / (p + 0.1),   p = pi(expert token): unlikely tokens learn faster than under -p A
    loss  = sum over tokens / T

WHO ACTS   the policy samples ``group_size`` - 1 completions per prompt; an expert adds one.
What differs from grpo: the mixed group, the shaped expert term, no clip, no deviation, a constant denominator (rows x longest
completion; the released code divides by the padded width of the batch).
Checked against: the authors' code (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig, LimitName
from rheostat.objectives.limits import PolicyShaping
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.policies.language.model import TokenScores
from rheostat.trajectories import Source, Trajectories


@dataclass(frozen=True)
class LUFFYConfig(GRPOConfig):
    """The released flags."""

    shaping: float = 0.1
    """gamma of f(p) = p / (p + gamma)."""
    advantage: Advantage = "mean-baseline"
    """Reward minus the mean of the mixed group."""
    limit: LimitName = "none"
    """On-policy tokens are not clipped."""
    aggregation: Aggregation = "constant"
    """Sum over tokens, divided by a constant."""
    kl_coefficient: float = 0.0
    """No KL."""


class LUFFY(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = LUFFYConfig
    config: LUFFYConfig
    search_refused: ClassVar[str] = "the experts of its groups have a weight of their own, which no window limits"
    uses_experts: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}
    dial_refused: ClassVar[dict[str, str]] = {"expert_share": "it has one expert in every group already; set group_size instead"}

    @property
    def experts_per_group(self) -> int:
        """One."""
        return 1

    def measured(self, rows: Trajectories) -> Tensor:
        """The policy's own tokens."""
        return rows.mask & (rows.source != int(Source.EXPERT))

    def surrogate(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> PolicyLoss:
        """The policy's own tokens by importance sampling, the expert's by policy shaping, over one denominator."""
        expert = rows.source == int(Source.EXPERT)
        start = scores.logp.detach() if rows.learner_logp is None else rows.learner_logp
        common: dict[str, Any] = {"aggregate": "constant", "denominator": denominator}
        own = policy_gradient(scores.logp, rows.advantage, denominator_logp=start, mask=rows.mask & ~expert, limit=self.limiter(), **common)
        shaped = policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=torch.zeros_like(scores.logp),
            mask=rows.mask & expert,
            limit=PolicyShaping(self.config.shaping),
            **common,
        )
        return PolicyLoss(own.loss + shaped.loss, own.terms)
