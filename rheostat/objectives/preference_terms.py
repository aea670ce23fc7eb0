"""Terms of preference data: what a language method minimises on pairs. Their mathematics is in :mod:`rheostat.objectives.preference`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_mean, masked_sum
from rheostat.objectives.preference import (
    Link,
    bradley_terry_loss,
    log_odds_ratio,
    odds_ratio_loss,
    preference_loss,
    simpo_loss,
    soft_preference_loss,
)
from rheostat.objectives.ratio import LOG_CLAMP
from rheostat.objectives.terms import TokenTerm, old_logp
from rheostat.parts import Batch, Context, Report
from rheostat.trajectories import Trajectories

Reduction = Literal["mean", "sum"]
"""How the log-probabilities of an answer's tokens become one number."""


@dataclass(frozen=True)
class PairTerm(TokenTerm, ABC):
    """Base of terms on pairs: a mean over the pairs of a gradient step. Rows of one unit are a pair, column ``chosen`` says which."""

    reads: ClassVar[Sequence[str]] = ("chosen",)
    needs_units: ClassVar[bool] = True

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Pairs of the gradient step."""
        assert batch.units is not None
        return torch.tensor(float(max(1, len(batch.units[batch.rows.mask.any(1)].unique()))))

    @staticmethod
    def by_side(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values ``[B]`` of rows as those of the chosen and of the rejected ones, in the order of their pairs."""
        assert batch.units is not None
        chosen = batch.columns["chosen"]
        return values[chosen][batch.units[chosen].argsort()], values[~chosen][batch.units[~chosen].argsort()]

    @abstractmethod
    def sides(self, scores: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """``[P]``: the numbers of the chosen and of the rejected answers that it compares, pair by pair."""

    def probability(self, chosen: Tensor, rejected: Tensor) -> Tensor | None:
        """``[P]``: that the chosen answer is the better one, as the model says; None where the loss knows no such probability."""
        return None

    def reduced(self, logp: Tensor, batch: Batch, reduction: Reduction) -> tuple[Tensor, Tensor]:
        """Log-probs ``[P]`` of the chosen and of the rejected answers, summed or averaged over their tokens, from tokens' ``[B, T]``."""
        reduce = masked_mean if reduction == "mean" else masked_sum
        return self.by_side(reduce(logp, batch.rows.mask, -1), batch)


def compared(chosen: Tensor, rejected: Tensor, denominator: Tensor) -> dict[str, Tensor]:
    """The mean margin, and the share of pairs that are ranked as the annotator ranked them; a tie is not."""
    margin = (chosen - rejected).detach()
    return {"margin": margin.sum() / denominator, "preference_accuracy": (margin > 0).sum() / denominator}


@dataclass(frozen=True)
class PreferenceTerm(PairTerm):
    """See :func:`~rheostat.objectives.preference.preference_loss`; a mean over pairs."""

    link: Link = "sigmoid"
    beta: float = 0.1
    smoothing: float = 0.0
    reads: ClassVar[Sequence[str]] = ("reference_logp", "chosen")

    def sides(self, scores: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed log-ratios ``[P]`` to the reference."""
        return self.by_side(masked_sum(scores.logp - batch.rows.reference_logp, batch.rows.mask, -1), batch)

    def probability(self, chosen: Tensor, rejected: Tensor) -> Tensor | None:
        """Of the implied Bradley-Terry model, for the links that are its likelihood."""
        return (self.beta * (chosen - rejected)).sigmoid() if self.link in ("sigmoid", "robust") else None

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        chosen, rejected = self.sides(scores, batch)
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
        sums = compared(chosen, rejected, denominator) | {
            "chosen_log_ratio": chosen.detach().sum() / denominator,
            "rejected_log_ratio": rejected.detach().sum() / denominator,
        }
        return loss.sum() / denominator, Report(sums=sums)


@dataclass(frozen=True)
class SoftPreference(TokenTerm):
    """See :func:`~rheostat.objectives.preference.soft_preference_loss`; a mean over all ranked pairs of a gradient step.

    Rows of one unit are answers to one prompt. Column ``rank`` int64 ``[B]`` is an answer's place among them, 0 for the best; ``strength``
    float64 ``[B, K]`` the probability that it is better than the answer of each rank, NaN where they make no pair.
    """

    beta: float = 0.1
    reads: ClassVar[Sequence[str]] = ("reference_logp", "rank", "strength")
    needs_units: ClassVar[bool] = True

    @staticmethod
    def pairs(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Rows ``[P]`` of the better and of the worse answers by rank, and the strengths ``[P]`` between them."""
        assert batch.units is not None
        rank, there = batch.columns["rank"], batch.rows.mask.any(1)
        ahead = (batch.units[:, None] == batch.units) & (rank[:, None] < rank) & there[:, None] & there
        better, worse = ahead.nonzero().unbind(1)
        strength = batch.columns["strength"][better, rank[worse]]
        told = ~strength.isnan()
        return better[told], worse[told], strength[told]

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Pairs of the gradient step."""
        return torch.tensor(float(max(1, len(self.pairs(batch)[0]))))

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        ratio = masked_sum(scores.logp - batch.rows.reference_logp, batch.rows.mask, -1)
        better, worse, strength = self.pairs(batch)
        loss = soft_preference_loss(ratio[better] - ratio[worse], strength.to(ratio.dtype), self.beta)
        size = (self.beta * (ratio[better] - ratio[worse]).detach()).abs()
        sums = compared(ratio[better], ratio[worse], denominator) | {
            "strength": strength.sum() / denominator,
            "absolute_margin": size.sum() / denominator,
        }
        return loss.sum() / denominator, Report(sums=sums)


@dataclass(frozen=True)
class ReferenceFree(PairTerm):
    """A link on log-probabilities without a reference: SimPO on their means, CPO on their sums; a mean over pairs."""

    link: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    beta: float = 2.0
    gamma: float = 0.5
    smoothing: float = 0.0
    reduction: Reduction = "mean"

    def sides(self, scores: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``[P]``, summed or averaged."""
        return self.reduced(scores.logp, batch, self.reduction)

    def probability(self, chosen: Tensor, rejected: Tensor) -> Tensor | None:
        """Of the implied Bradley-Terry model, without the margin that is asked for."""
        return (self.beta * (chosen - rejected)).sigmoid() if self.link == "sigmoid" else None

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        chosen, rejected = self.sides(scores, batch)
        if self.link == "sigmoid":
            loss = simpo_loss(chosen, rejected, beta=self.beta, gamma=self.gamma, smoothing=self.smoothing)
        else:
            loss = preference_loss(chosen, rejected, link=self.link, beta=self.beta)
        return loss.sum() / denominator, Report(sums=compared(chosen, rejected, denominator))


@dataclass(frozen=True)
class OddsRatio(PairTerm):
    """See :func:`~rheostat.objectives.preference.odds_ratio_loss`; a mean over pairs."""

    def sides(self, scores: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean log-probabilities ``[P]``."""
        return self.reduced(scores.logp, batch, "mean")

    def probability(self, chosen: Tensor, rejected: Tensor) -> Tensor | None:
        """The sigmoid of the log odds ratio."""
        return log_odds_ratio(chosen, rejected).sigmoid()

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        chosen, rejected = self.sides(scores, batch)
        return odds_ratio_loss(chosen, rejected).sum() / denominator, Report(sums=compared(chosen, rejected, denominator))


@dataclass(frozen=True)
class ChosenLikelihood(TokenTerm):
    """The negative log-likelihood of chosen answers, a mean over their tokens; with ``prompts`` over those of their prompts, too."""

    prompts: bool = False
    reads: ClassVar[Sequence[str]] = ("chosen",)

    def rows_of(self, batch: Batch) -> Trajectories:
        """The chosen rows, whose mask holds the tokens that count."""
        rows = batch.rows[batch.columns["chosen"]]
        if self.prompts:
            rows = rows.clone(recurse=False)
            rows.mask = rows.attention & (rows.attention.cumsum(-1) > 1)  # nothing predicts the first
        return rows

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Tokens of the gradient step."""
        return self.rows_of(batch).mask.sum().clamp(min=1)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows = self.rows_of(batch)
        logp = context.score(rows, entropy=False).logp if self.prompts else scores.logp[batch.columns["chosen"]]
        return -masked_sum(logp, rows.mask) / denominator, Report()


@dataclass(frozen=True)
class BradleyTerry(PairTerm):
    """A reward model's loss on pairs: the value head after the last token is the reward of an answer; a mean over pairs.

    See :func:`~rheostat.objectives.preference.bradley_terry_loss`. The margin of a pair is its column ``margin``.
    """

    centring: float = 0.0
    margins: bool = False
    reads: ClassVar[Sequence[str]] = ("chosen", "margin")
    needs_value_head: ClassVar[bool] = True

    def bind(self, context: Any) -> None:
        """Refuse margins where no pair has one."""
        rows = getattr(context.setup.task, "named", ())
        if self.margins and not any(prompt.columns.get("margin") for _, prompt in rows):
            raise RheostatError("margins asks every pair for its margin, and none has one: give the column margin, or leave it out.")

    def sides(self, scores: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Rewards ``[P]``."""
        return self.by_side(answer_rewards(scores.next_value, batch.rows.mask), batch)

    def probability(self, chosen: Tensor, rejected: Tensor) -> Tensor | None:
        """Of the Bradley-Terry model."""
        return (chosen - rejected).sigmoid()

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        chosen, rejected = self.sides(scores, batch)
        margin = self.by_side(batch.columns["margin"], batch)[0] if self.margins else None
        loss = bradley_terry_loss(chosen, rejected, margin=margin, centring=self.centring)
        sums = compared(chosen, rejected, denominator) | {
            "chosen_reward": chosen.detach().sum() / denominator,
            "rejected_reward": rejected.detach().sum() / denominator,
        }
        return loss.sum() / denominator, Report(sums=sums)


def answer_rewards(next_value: Tensor, mask: Tensor) -> Tensor:
    """``[B]``: the value ``[B, T]`` after the last masked token of every row, which must have one."""
    last = mask.shape[1] - 1 - mask.flip(1).to(torch.uint8).argmax(1)
    return next_value.gather(1, last[:, None])[:, 0]


@dataclass(frozen=True)
class PairwiseGradient(PairTerm):
    """The pairwise policy gradient: the difference of two rewards on the difference of two log-probabilities; a mean over pairs.

    g    = r_w - r_l - beta (k_w - k_l),   k the summed log-ratio to the reference when the update began
    none      -g / 2 (S_w - S_l)
    separate  -1/2 [ min(R_w g, clip(R_w) g) + min(-R_l g, -clip(R_l) g) ],   R = pi / pi_old of an answer
    joint     -1/2 min(R g, clip(R) g),   R = R_w / R_l

    All have the same gradient where the policy is that of the start of the update. Column ``margin`` is ``r_w - r_l``.
    """

    clip: Literal["separate", "joint", "none"] = "separate"
    epsilon: float = 0.2
    kl_coefficient: float = 0.0

    @property
    def reads(self) -> Sequence[str]:  # type: ignore[override]
        """Which answer is which, by how much, and with a KL the reference."""
        return ("chosen", "margin", *(["reference_logp"] if self.kl_coefficient else []))

    def sides(self, scores: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed log-probabilities ``[P]``."""
        return self.reduced(scores.logp, batch, "sum")

    def gain(self, scores: Any, batch: Batch) -> Tensor:
        """``[P]``: by how much the chosen answer is the better one, with the KL as a part of the reward; a constant."""
        gap = self.by_side(batch.columns["margin"], batch)[0]
        if not self.kl_coefficient:
            return gap
        chosen, rejected = self.reduced(old_logp(scores, batch.rows) - batch.rows.reference_logp, batch, "sum")
        return gap - self.kl_coefficient * (chosen - rejected)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        chosen, rejected = self.sides(scores, batch)
        old = self.reduced(old_logp(scores, batch.rows), batch, "sum")
        moved, gain = (chosen - old[0], rejected - old[1]), self.gain(scores, batch)
        if self.clip == "none":
            loss = -0.5 * gain * (chosen - rejected)
        elif self.clip == "joint":
            loss = -0.5 * self.clipped(moved[0] - moved[1], gain)
        else:
            loss = -0.5 * (self.clipped(moved[0], gain) + self.clipped(moved[1], -gain))
        report = {"reward_gap": gain.sum() / denominator, "margin": (chosen - rejected).detach().sum() / denominator}
        return loss.sum() / denominator, Report(sums=report)

    def clipped(self, log_ratio: Tensor, gain: Tensor) -> Tensor:
        """``min(R g, clip(R) g)`` of a log-ratio ``[P]``."""
        ratio = log_ratio.clamp(*LOG_CLAMP).exp()
        return torch.minimum(ratio * gain, ratio.clamp(1 - self.epsilon, 1 + self.epsilon) * gain)
