"""Terms of preference data: what a language method minimises on pairs. Their mathematics is in :mod:`rheostat.objectives.preference`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.masking import masked_sum
from rheostat.objectives.preference import Link, preference_loss
from rheostat.objectives.terms import TokenTerm
from rheostat.parts import Batch, Context, Report


@dataclass(frozen=True)
class PreferenceTerm(TokenTerm):
    """See :func:`~rheostat.objectives.preference.preference_loss`; a mean over pairs."""

    link: Link = "sigmoid"
    beta: float = 0.1
    smoothing: float = 0.0
    reads: ClassVar[Sequence[str]] = ("reference_logp", "chosen")
    needs_units: ClassVar[bool] = True

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Pairs of the gradient step."""
        assert batch.units is not None
        return torch.tensor(float(len(batch.units.unique())))

    def log_ratios(self, logp: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed log-ratios ``[P]`` of the chosen and of the rejected answers, pair by pair, from log-probs ``[B, T]``."""
        return self.by_side(masked_sum(logp - batch.rows.reference_logp, batch.rows.mask, -1), batch)

    @staticmethod
    def by_side(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values ``[B]`` of rows as those of the chosen and of the rejected ones, in the order of their pairs."""
        assert batch.units is not None
        chosen = batch.columns["chosen"]
        return values[chosen][batch.units[chosen].argsort()], values[~chosen][batch.units[~chosen].argsort()]

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        chosen, rejected = self.log_ratios(scores.logp, batch)
        lengths = self.by_side(batch.rows.mask.sum(-1), batch)
        loss = preference_loss(
            chosen,
            rejected,
            link=self.link,
            beta=self.beta,
            smoothing=self.smoothing,
            chosen_length=lengths[0],
            rejected_length=lengths[1],
        )
        margin = (chosen - rejected).detach()
        sums = {
            "margin": margin.sum() / denominator,
            "preference_accuracy": (margin > 0).sum() / denominator,
            "chosen_log_ratio": chosen.detach().sum() / denominator,
            "rejected_log_ratio": rejected.detach().sum() / denominator,
        }
        return loss.sum() / denominator, Report(sums=sums)
