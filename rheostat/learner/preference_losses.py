"""What a policy of answers minimises on a batch of graded samples: one part per family of losses, each with the switch for its push.

Every loss takes the log-probabilities of tokens ``[S, N, L]`` under the policy that moves, and the batch; it returns a scalar and what the
log says of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.objectives.graded_samples import (
    Negative,
    all_pairs_loss,
    best_of_n_loss,
    check_negative,
    clipped_sequence_loss,
    exponential_loss,
    reinforce_loss,
)
from rheostat.objectives.preference import Link, best_of_n
from rheostat.options import option
from rheostat.parts import Metrics


@dataclass(frozen=True)
class Graded:
    """A batch: S prompts with N answers each."""

    prompt: Tensor
    """``[S, ...]``."""
    answer: Tensor
    """int64 ``[S, N, L]``."""
    reward: Tensor
    """``[S, N]``."""
    weight: Tensor
    """``[S, N]``: the rewards as the loss's own credit normalises them."""
    old_logp: Tensor
    """``[S, N, L]`` under the policy when the batch was made."""
    reference_logp: Tensor
    """``[S, N, L]``."""


def summed(logp: Tensor) -> Tensor:
    """``[S, N]`` of tokens ``[S, N, L]``."""
    return logp.sum(-1)


@dataclass(frozen=True)
class BestOfN:
    """The likelihood of the best sample; what is pushed down besides is a choice."""

    kind: ClassVar[str] = "best-of-n"

    negative_gradient: Negative = option("none")
    """What is pushed down: nothing, the worst sample, the mean or the sum of all but the best, or the complement of their probabilities."""
    negative_weight: float = option(0.0, at_least=0)
    """Weight of the push."""
    least_ratio: float | None = option(None, above=0, below=1)
    """A sample is pushed down only while its probability is above this share of the best one's; None always."""

    def __post_init__(self) -> None:
        check_negative(self.negative_gradient, self.negative_weight)

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.negative_gradient == "none":
            return {"least_ratio": "nothing is pushed down; choose a negative_gradient too, or leave it alone"}
        if not self.negative_weight:
            why = "negative_weight is 0, so nothing is pushed down; set that too, or leave it alone"
            return {"negative_gradient": why, "least_ratio": why}
        return {}

    def __call__(self, logp: Tensor, batch: Graded) -> tuple[Tensor, Metrics]:
        loss = best_of_n_loss(
            summed(logp), batch.reward, negative=self.negative_gradient, weight=self.negative_weight, least_ratio=self.least_ratio
        )
        return loss, {}


@dataclass(frozen=True)
class Regression:
    """Likelihood weighted by exp(reward / temperature)."""

    kind: ClassVar[str] = "rwr"

    temperature: float = option(1.0, above=0)
    """Of the exponential weights."""

    def __call__(self, logp: Tensor, batch: Graded) -> tuple[Tensor, Metrics]:
        return exponential_loss(summed(logp), batch.reward, temperature=self.temperature), {}


@dataclass(frozen=True)
class Pairs:
    """A link on all pairs of a prompt's samples."""

    threshold: float | None = option(None, short="pair_threshold", at_least=0)
    """Pairs whose rewards differ by less are left out; None keeps all, ties too."""

    def of(self, logp: Tensor, batch: Graded, link: Link, beta: float) -> tuple[Tensor, Metrics]:
        """The loss with a link, and the number of its pairs."""
        found, margins = all_pairs_loss(
            summed(logp), summed(batch.reference_logp), batch.reward, link=link, beta=beta, threshold=self.threshold
        )
        return found, {"pairs": len(margins)}


@dataclass(frozen=True)
class IPO(Pairs):
    """``(D - margin)^2``."""

    kind: ClassVar[str] = "ipo"

    target_margin: float = option(10.0, above=0)
    """The difference of log-ratios that is asked for, in nats; 1 / (2 beta) of the paper's beta."""

    def __call__(self, logp: Tensor, batch: Graded) -> tuple[Tensor, Metrics]:
        return self.of(logp, batch, "ipo", 1 / (2 * self.target_margin))


@dataclass(frozen=True)
class ScaledIPO(Pairs):
    """``(beta D - 1/2)^2``."""

    kind: ClassVar[str] = "ipo-scaled"

    beta: float = option(0.1, above=0)
    """Regularisation: the larger, the nearer to the reference the policy stays."""

    def __call__(self, logp: Tensor, batch: Graded) -> tuple[Tensor, Metrics]:
        return self.of(logp, batch, "ipo-scaled", self.beta)


@dataclass(frozen=True)
class DPO(Pairs):
    """``-log sigmoid(beta D)``."""

    kind: ClassVar[str] = "dpo"

    beta: float = option(0.1, above=0)
    """Scale of the log-ratios."""

    def __call__(self, logp: Tensor, batch: Graded) -> tuple[Tensor, Metrics]:
        return self.of(logp, batch, "sigmoid", self.beta)


@dataclass(frozen=True)
class Reinforce:
    """The policy gradient on the batch, without a ratio to the policy that made it."""

    kind: ClassVar[str] = "reinforce"

    negative_gradient: bool = option(True)
    """Keep negative weights; off, the batch's smallest weight is subtracted, so that nothing is pushed down."""
    entropy: float = option(0.0, short="entropy_coefficient", at_least=0)
    """Of the entropy's estimate, minus the mean log-probability of the samples; its expected gradient is 0."""

    def __call__(self, logp: Tensor, batch: Graded) -> tuple[Tensor, Metrics]:
        weight = batch.weight if self.negative_gradient else batch.weight - batch.weight.min()
        return reinforce_loss(summed(logp), weight, entropy=self.entropy), {}


@dataclass(frozen=True)
class Clipped:
    """PPO on tokens, against the policy that made the batch."""

    kind: ClassVar[str] = "ppo"

    clip: float = option(0.2, above=0)
    """Clip range of the ratio."""
    kl_coefficient: float = option(0.0, at_least=0)
    """Of the log-ratio to the reference, added to every token's loss."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "reuse is 1, so every gradient step has its own batch and the ratio is 1; raise it, or leave clip alone"
        return {"clip": why} if method.collect.reuse == 1 else {}

    def __call__(self, logp: Tensor, batch: Graded) -> tuple[Tensor, Metrics]:
        rows = clipped_sequence_loss(
            logp, batch.old_logp, batch.reference_logp, batch.weight, clip=self.clip, kl_coefficient=self.kl_coefficient
        )
        outside = ((logp - batch.old_logp).exp() - 1).abs() > self.clip
        return rows.mean(), {"clip_fraction": float(outside.float().mean())}


Loss = BestOfN | Regression | IPO | ScaledIPO | DPO | Reinforce | Clipped
WEIGHTED = (Reinforce, Clipped)
"""Losses that take the normalised weight, and not the reward."""


@torch.no_grad()
def pair_report(logp: Tensor, batch: Graded) -> Metrics:
    """Log-ratios to the reference of every prompt's best and worst sample, their margin, and how often the best one is ahead."""
    ratio = summed(logp) - summed(batch.reference_logp)
    best = ratio.gather(-1, best_of_n(batch.reward).unsqueeze(-1)).squeeze(-1)
    worst = ratio.gather(-1, best_of_n(-batch.reward).unsqueeze(-1)).squeeze(-1)
    return {
        "winner_log_ratio": float(best.mean()),
        "loser_log_ratio": float(worst.mean()),
        "margin": float((best - worst).mean()),
        "preference_accuracy": float((best > worst).float().mean()),
    }
