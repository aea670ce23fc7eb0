"""A reward model is trained on the outcome of a completion at every token (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rheostat.objectives.terms import TokenTerm
from rheostat.objectives.value import value_loss
from rheostat.parts import Batch, Context, Report, row_reward


@dataclass(frozen=True)
class OutcomeRegression(TokenTerm):
    """Squared error of a value head to the reward of the row, before and after every token.

        loss = mean_t 1/2 [ 1/2 (V(s_t) - R)^2 + 1/2 (V(s_t+1) - R)^2 ]

    ``s_t`` is the row before token t. States between two tokens of one turn count twice, the first and the last of a turn once; the state
    before the first token is among them, because progress of a token is measured from there.
    """

    reads: ClassVar[Sequence[str]] = ()

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        target = row_reward(batch)[:, None].expand(batch.rows.shape)
        mask, mode = self.mask(batch), self.tokens.aggregate.mode
        before, after = (
            value_loss(value, target, mask=mask, aggregate=mode, denominator=denominator) for value in (scores.value, scores.next_value)
        )
        return 0.5 * (before + after), Report()
