"""PPO for language models: PPO with a critic on every token.

Papers: Schulman et al. 2017, arXiv 1707.06347; Ouyang et al. 2022, arXiv 2203.02155 (InstructGPT).

Equations
    r_t    = -beta (log pi_old - log pi_ref)_t + R at the last token
    A, Ret = GAE(gamma, lam) over the completion's tokens, A whitened over the batch
    loss   = token mean of the clipped surrogate + c_V 1/2 mean max((V - Ret)^2, (clip(V, V_old +- 0.5) - Ret)^2)

What differs from grpo: a value head on the model estimates the value of each token, so one completion per prompt is enough and credit goes
to tokens. The critic shares the model's trunk (the published systems train a second model of the same size). A completion cut by the
length limit bootstraps from the value after its last token.
Checked against: verl 0.8.0.dev (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import OldScores, OverlongPenalty, TokenGAE
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, RewardKL, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection, TokenValue
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class PPOLM:
    """verl's defaults."""

    groups: Groups = Groups(256, 1)
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    gae: TokenGAE = TokenGAE(1.0, 1.0)
    overlong: OverlongPenalty = OverlongPenalty()
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    value_coefficient: float = option(0.5, at_least=0)
    """Weight c_V of the critic's loss."""
    value_clip: float | None = option(0.5, above=0)
    """Clip of the critic's change."""
    kl: LossKL | RewardKL = RewardKL(0.001)
    """The KL to the starting model: part of the token rewards, or in the loss."""
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(minibatches=4)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 3e-4, "kl_coefficient": 0.0}}

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.value_coefficient else {"value_clip": "value_coefficient is 0, so the critic stays as it begins; leave it alone"}

    def compose(self) -> Composition:
        """The four answers."""
        tokens = Tokens(self.aggregate)
        surrogate = PolicyGradient(tokens, self.clip, correction=self.correction)
        return Composition(
            collect=self.groups,
            retain=[self.keep],
            credit=[OldScores(), *self.kl.annotations, self.overlong, replace(self.gae, kl_penalty=self.kl.penalty)],
            improve=[
                self.update.of(
                    Weighted(surrogate),
                    *regularisers(self, tokens),
                    Weighted(TokenValue(tokens, self.value_clip), self.value_coefficient, "value"),
                )
            ],
            models=policy_models(self.update, self.kl),
        )
