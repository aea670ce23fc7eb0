"""The loss of a policy discriminator: which of two candidates is of the policy that wrote the reference (POLAR, arXiv 2507.05197).

With ``r`` the scores of the two candidates beside one reference, ``ls`` the logarithm of the sigmoid ``s`` and ``p = s(r_w - r_l)``:

    ranking   -ls(r_w - r_l)
    focal     -ls(r_w - r_l) (1 - 2 max(0, p - 1/2))^2,   the weight is part of the gradient

and, added with a weight, a penalty of the size of scores, of which the ranking says nothing:

    log-barrier   -log(5 - z) - log(z + 5),   z the score clamped to [-4.999, 4.999]: no gradient outside
    l2            z^2

The paper uses the ranking alone; the others are options of the released training code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rheostat.masking import require_same_shape
from rheostat.objectives.preference_terms import PairTerm, answer_rewards, compared
from rheostat.parts import Batch, Context, Report

Penalty = Literal["none", "log-barrier", "l2"]
"""Of the size of scores."""
BARRIER, NEAREST = 5.0, 4.999
"""Size of a score at which the barrier is infinite, and the largest at which it is evaluated."""


def same_policy_loss(chosen: Tensor, rejected: Tensor, *, focal: bool = False) -> Tensor:
    """``-ls(r_w - r_l)``, and with ``focal`` times ``(1 - 2 max(0, p - 1/2))^2``, which is 1 for pairs ordered the wrong way round.

    Args:
        chosen, rejected: ``[P]`` scores of the candidates beside the same reference; they carry the gradient.
        focal: weigh down pairs that are told apart already.

    Returns:
        ``[P]``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(chosen=chosen, rejected=rejected)
    loss = -logsigmoid(chosen - rejected)
    if not focal:
        return loss
    surplus = torch.relu((chosen - rejected).sigmoid() - 0.5)
    return loss * (1 - 2 * surplus).square()


def score_penalty(score: Tensor, kind: Penalty) -> Tensor:
    """What the size of scores ``[B]`` costs, ``[B]``; 0 for ``none``."""
    if kind == "none":
        return torch.zeros_like(score)
    if kind == "l2":
        return score.square()
    near = score.clamp(-NEAREST, NEAREST)
    return -(BARRIER - near).log() - (near + BARRIER).log()


@dataclass(frozen=True)
class SamePolicy(PairTerm):
    """See :func:`same_policy_loss`, a mean over pairs, and :func:`score_penalty`, a mean over both of their scores.

    The score is the value head's after the last token of a row.
    """

    focal: bool = False
    penalty: Penalty = "none"
    penalty_weight: float = 0.01
    needs_value_head: ClassVar[bool] = True

    def sides(self, scores: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores ``[P]``."""
        return self.by_side(answer_rewards(scores.next_value, batch.rows.mask), batch)

    def probability(self, chosen: Tensor, rejected: Tensor) -> Tensor | None:
        """Of the Bradley-Terry model."""
        return (chosen - rejected).sigmoid()

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        chosen, rejected = self.sides(scores, batch)
        sums = compared(chosen, rejected, denominator) | {
            "chosen_score": chosen.detach().sum() / denominator,
            "rejected_score": rejected.detach().sum() / denominator,
        }
        loss = same_policy_loss(chosen, rejected, focal=self.focal)
        if self.penalty != "none":
            size = 0.5 * (score_penalty(chosen, self.penalty) + score_penalty(rejected, self.penalty))
            loss, sums["score_penalty"] = loss + self.penalty_weight * size, size.detach().sum() / denominator
        return loss.sum() / denominator, Report(sums=sums)
