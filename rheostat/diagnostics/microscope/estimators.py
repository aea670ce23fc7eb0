"""Plain importance-sampling estimators of the policy gradient: the library's kernel and weights with nothing around them.

Every estimator is ``sum_t w_t A grad log pi(y_t)`` averaged over completions, with the leave-one-out advantage of RLOO, which adds no
bias. They differ in the weight ``w_t``, made of the ratios ``r_t`` of the learner to the sampler. Where the reward lies on the last
token, the per-decision weight of reinforcement learning is that of the whole sequence, because the only reward comes after every decision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from rheostat.buffers.retainers import SamplerHead
from rheostat.learner.learner import Composition
from rheostat.masking import select
from rheostat.methods.language.reinforce import Reinforce
from rheostat.objectives.clipping import DetachedClip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.score_centring import centring
from rheostat.objectives.terms import TokenTerm
from rheostat.objectives.weights import OverCap, importance_weight
from rheostat.parts import Batch, Context, Report, Tokens, Weighted
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class Plain:
    """A plain estimator: its description and its weight."""

    title: str
    weight: WeightedLikelihood


@dataclass(frozen=True)
class WeightedLikelihood(TokenTerm):
    """``-w A log p``; the ratio is that of the present learner to the sampler."""

    weight: Literal["none", "token", "prefix", "sequence"] = "none"
    """Which ratios enter the weight of a token."""
    cap: float | None = None
    """Largest weight."""
    over_cap: OverCap = "truncate"
    """Weights above the cap become the cap, or 0."""
    self_normalised: bool = False
    """Divide by the mean weight of the batch."""
    head_tokens: int = 0
    """Centre the score over so many of the sampler's likeliest tokens (weights ``none`` and ``token``); 0 does not."""
    reads: ClassVar[Sequence[str]] = ("advantage",)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows = batch.rows
        found = policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=None,
            mask=rows.mask,
            clip=DetachedClip(),
            weight=self.weights(scores.logp.detach(), rows),
            aggregate=self.tokens.aggregate.mode,
            denominator=denominator,
        )
        loss = found.loss
        if self.head_tokens:
            cap = None if self.weight == "none" else (self.cap or math.inf)
            options: dict[str, Any] = {"mask": rows.mask, "clip": DetachedClip(), "cap": cap}
            loss = loss - self.reduce(centring(scores.head, rows.sampler_head, rows.advantage, **options)[0], batch, denominator)
        return loss, Report(clipped=found.clipped)

    def weights(self, logp: Tensor, rows: Trajectories) -> Tensor | None:
        """The weight of every token, ``[B, T]``."""
        if self.weight == "none":
            return None
        sampler_logp = select(rows.sampler_logp, rows.mask)
        if self.weight == "prefix":
            logp, sampler_logp = logp.cumsum(1), sampler_logp.cumsum(1)
        return importance_weight(
            logp,
            sampler_logp,
            mask=rows.mask,
            level="sequence" if self.weight == "sequence" else "token",
            cap=self.cap,
            over_cap=self.over_cap,
            batch_normalise=self.self_normalised,
        )


EVERY = 2**20
"""More tokens than any vocabulary here has."""
WEIGHTED: dict[str, Plain] = {
    "is:none": Plain("uncorrected", WeightedLikelihood()),
    "is:sequence": Plain("product of all ratios of the completion", WeightedLikelihood(weight="sequence")),
    "is:prefix": Plain("product of the ratios up to the token: corrects the past, not the future", WeightedLikelihood(weight="prefix")),
    "is:token": Plain("the token's own ratio", WeightedLikelihood(weight="token")),
    "is:truncated": Plain("sequence weight, at most 2", WeightedLikelihood(weight="sequence", cap=2.0)),
    "is:masked": Plain("sequence weight, completions above 2 dropped", WeightedLikelihood(weight="sequence", cap=2.0, over_cap="mask")),
    "is:token-truncated": Plain("the token's own ratio, at most 2", WeightedLikelihood(weight="token", cap=2.0)),
    "is:centred": Plain("uncorrected, without the drift: score centring", WeightedLikelihood(head_tokens=EVERY)),
    "is:token-truncated-centred": Plain(
        "the token's own ratio, at most 2, and score centring", WeightedLikelihood(weight="token", cap=2.0, head_tokens=EVERY)
    ),
    "is:self-normalised": Plain(
        "sequence weight over the batch's mean weight", WeightedLikelihood(weight="sequence", self_normalised=True)
    ),
}
"""The plain estimators by name."""


def composition_of_estimator(name: str, config: Reinforce) -> Composition:
    """REINFORCE's parts with a plain estimator's term, which allows any number of gradient steps.

    Args:
        name: of :data:`WEIGHTED`.
        config: REINFORCE's; its advantage is a baseline that does not know the completion.
    """
    found = config.compose()
    term = replace(WEIGHTED[name].weight, tokens=Tokens(config.aggregate))
    head = [SamplerHead(term.head_tokens)] if term.head_tokens else []
    return replace(found, retain=[*head, *found.retain], improve=[config.update.of(Weighted(term))])
