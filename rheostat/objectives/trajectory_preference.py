"""An implicit process reward model learns from pairs of whole trajectories (Liu et al. 2025, arXiv 2509.19199, equation 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.credit.turns import per_step, steps_of, taken
from rheostat.masking import select
from rheostat.objectives.preference import sigmoid_loss
from rheostat.objectives.terms import TokenTerm
from rheostat.parts import BEGUN, Batch, Context, Report, row_reward

SHARE, SLOPE = "pair_loss", "pair_slope"
"""Columns ``[B]``: a row's share of the loss, and the derivative of the loss by the row's score."""


@dataclass(frozen=True)
class TrajectoryPreference(TokenTerm):
    """DPO on all pairs of a success and a failure of one group; a mean over pairs, 0 where there is none.

    R(tau) = sum over steps and tokens of log pi_phi - log pi_old
    loss   = - mean over pairs of log sigmoid(beta [R(success) - R(failure)])

    The rows of a pair may be in different micro-batches: the derivatives by the scores are found first, from all rows of the gradient step.
    """

    beta: float = 0.05
    threshold: float = 0.0
    """An outcome above it is a success."""
    score: Literal["sum", "mean"] = "sum"
    """Of a trajectory: the sum over its steps, or their mean, as in the authors' code."""
    reads: ClassVar[Sequence[str]] = ("learner_logp",)
    needs_whole_step: ClassVar[bool] = True

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """1: pairs are counted before the micro-batches."""
        return torch.ones(())

    def scores_of(self, logp: Tensor, batch: Batch) -> Tensor:
        """R of every row, ``[B]``, from log-probabilities ``[B, T]``."""
        step = steps_of(batch)
        total = per_step(logp - batch.rows.learner_logp, step).sum(1)
        return total if self.score == "sum" else total / taken(step).sum(1).clamp(min=1)

    def begin(self, context: Any, logp: Tensor, batch: Batch) -> Batch:
        """All rows of a gradient step with their shares of the loss and its derivatives."""
        score = self.scores_of(logp.detach(), batch)
        kept, right = batch.rows.mask.any(1), row_reward(batch) > self.threshold
        group = batch.rows.group[:, 0]
        pair = (right & kept)[:, None] & (~right & kept) & (group[:, None] == group)
        count = pair.sum().clamp(min=1)
        with torch.enable_grad():
            leaf = score.requires_grad_()
            loss = select(sigmoid_loss(leaf[:, None] - leaf, self.beta), pair) / count
            (slope,) = torch.autograd.grad(loss.sum(), leaf)
        loss = loss.detach()
        columns = {SHARE: (loss.sum(1) + loss.sum(0)) / 2, SLOPE: slope}
        return Batch(batch.rows, batch.columns | columns, batch.units, batch.metrics, batch.facts)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        if not batch.facts.get(BEGUN):  # the batch is the whole step
            batch = self.begin(context, scores.logp, batch)
        score = self.scores_of(scores.logp, batch)
        moves = batch.columns[SLOPE] * (score - score.detach())  # 0, with the derivative of the loss
        return (batch.columns[SHARE] + moves).sum() / denominator, Report()
