"""An implicit reward model learns whether completions are right from its own log-ratios (Yuan et al. 2024, arXiv 2412.01981)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rheostat.masking import masked_sum
from rheostat.objectives.terms import TokenTerm
from rheostat.parts import Batch, Context, Report, row_reward


@dataclass(frozen=True)
class OutcomeLikelihood(TokenTerm):
    """Cross-entropy between the outcome of a row and the sigmoid of its implicit reward; a mean over rows.

    r    = beta sum_t log pi_phi(y_t) - log pi_ref(y_t)
    loss = - mean over rows [ o log sigmoid(r) + (1 - o) log(1 - sigmoid(r)) ],   o = 1 where the reward is above the threshold
    """

    beta: float = 0.05
    threshold: float = 0.5
    reads: ClassVar[Sequence[str]] = ("reference_logp",)

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Rows with at least one token."""
        return self.mask(batch).any(1).sum().clamp(min=1)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        mask = self.mask(batch)
        implicit = self.beta * masked_sum(scores.logp - batch.rows.reference_logp, mask, -1)
        right = (row_reward(batch) > self.threshold).to(implicit.dtype)
        loss = binary_cross_entropy_with_logits(implicit, right, reduction="none")
        return torch.where(mask.any(1), loss, 0.0).sum() / denominator, Report()
