"""RFT: rejection-sampling fine-tuning.

Paper: Yuan et al. 2023, arXiv 2308.01825 (also RAFT, Dong et al. 2023; expert iteration).

Equation
    loss = -1/(sum over kept |y_i|) sum over kept sum_t log pi(y_it | x, y_i<t),       kept = completions with reward >= threshold

What differs from grpo: what is kept. Wrong completions are dropped, right ones are imitated with weight 1: no baseline, no negative signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig, LimitName
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class RFTConfig(GRPOConfig):
    """Imitate what was right."""

    threshold: float = 1.0
    """Smallest reward that is kept."""
    advantage: Advantage = "reward"
    """Every kept token counts 1."""
    limit: LimitName = "detached"
    """The log-likelihood itself."""
    clip_low: float | None = None
    """No bound."""
    clip_high: float | None = None
    """No bound."""
    aggregation: Aggregation = "token-mean"
    """Every kept token weighs the same."""
    kl_coefficient: float = 0.0
    """No KL."""


class RFT(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = RFTConfig
    config: RFTConfig
    search_refused: ClassVar[str] = "every kept token counts 1, so there are no sides to balance"

    def retain(self, fresh: Trajectories) -> Trajectories:
        """WHAT IS KEPT? Completions whose reward reaches the threshold."""
        kept = super().retain(fresh)
        kept.mask = kept.mask & (kept.reward.sum(1, keepdim=True) >= self.config.threshold)
        return kept

    def advantages(self, rows: Trajectories, reward: Tensor) -> Tensor:
        """1 on every kept token."""
        return rows.mask.float()
