"""Plain importance-sampling estimators of the policy gradient: the library's kernel and weights with nothing around them.

Every estimator is ``sum_t w_t A grad log pi(y_t)`` averaged over completions, with the leave-one-out advantage of RLOO, which biases
nothing. They differ in the weight ``w_t``, made of the ratios ``r_t`` of the learner to the sampler. Where the reward stands on the last
token, the per-decision weight of reinforcement learning is that of the whole sequence, because the only reward comes after every decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from rheostat.masking import select
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig
from rheostat.methods.language.reinforce import ReinforceConfig
from rheostat.objectives.limits import DetachedClip
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.weights import OverCap, importance_weight
from rheostat.policies.language.model import TokenScores
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class Plain:
    """A plain estimator: what it does, and the settings of :class:`WeightedConfig` that make it."""

    title: str
    settings: dict[str, Any]


WEIGHTED: dict[str, Plain] = {
    "is:none": Plain("uncorrected", {"weight": "none"}),
    "is:sequence": Plain("product of all ratios of the completion", {"weight": "sequence"}),
    "is:prefix": Plain("product of the ratios up to the token: corrects the past, not the future", {"weight": "prefix"}),
    "is:token": Plain("the token's own ratio", {"weight": "token"}),
    "is:truncated": Plain("sequence weight, at most 2", {"weight": "sequence", "cap": 2.0}),
    "is:masked": Plain("sequence weight, completions above 2 dropped", {"weight": "sequence", "cap": 2.0, "over_cap": "mask"}),
    "is:token-truncated": Plain("the token's own ratio, at most 2", {"weight": "token", "cap": 2.0}),
    "is:self-normalised": Plain("sequence weight over the batch's mean weight", {"weight": "sequence", "self_normalised": True}),
}
"""The plain estimators by name."""


@dataclass(frozen=True)
class WeightedConfig(ReinforceConfig):
    """REINFORCE with a weight."""

    advantage: Advantage = "rloo"
    """Reward minus the mean of the others: a baseline that does not know the completion."""
    weight: Literal["none", "token", "prefix", "sequence"] = "none"
    """Which ratios enter the weight of a token."""
    cap: float | None = None
    """Largest weight."""
    over_cap: OverCap = "truncate"
    """Weights above the cap become the cap, or 0."""
    self_normalised: bool = False
    """Divide by the mean weight of the batch."""


class Weighted(GRPO):
    """One gradient step with ``WeightedConfig``; the ratio is that of the learner as it is now to whoever sampled."""

    Config: ClassVar[type[GRPOConfig]] = WeightedConfig
    config: WeightedConfig

    def surrogate(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> PolicyLoss:
        """The weighted log-likelihood."""
        return policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=None,
            mask=rows.mask,
            limit=DetachedClip(),
            weight=self.weight(scores.logp.detach(), rows),
            aggregate=self.config.aggregation,
            denominator=denominator,
        )

    def weight(self, logp: Tensor, rows: Trajectories) -> Tensor | None:
        """The weight of every token, ``[B, T]``."""
        config = self.config
        if config.weight == "none":
            return None
        sampler_logp = select(rows.sampler_logp, rows.mask)
        if config.weight == "prefix":
            logp, sampler_logp = logp.cumsum(1), sampler_logp.cumsum(1)
        return importance_weight(
            logp,
            sampler_logp,
            mask=rows.mask,
            level="sequence" if config.weight == "sequence" else "token",
            cap=config.cap,
            over_cap=config.over_cap,
            batch_normalise=config.self_normalised,
        )
