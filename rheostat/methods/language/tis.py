"""TIS: truncated importance sampling between the sampler and the learner.

Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (blog), as in verl 0.8.0.dev.

Equation
    loss = GRPO's token loss x sg[ min( pi_old^learner(y_t) / pi^sampler(y_t), C ) ],       C = 2

What differs from grpo: the sampler's log-probabilities (another kernel, another precision, or older weights) are corrected by a
constant, capped weight after the clip; ``sampler_correction=sequence`` uses one weight per completion. Tokens weigh equally, the clip is
DAPO's, no KL.
Checked against: verl 0.8.0.dev and TRL 1.16.0 (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class TIS:
    """verl's cap."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: AnyClip = Clip(0.2, 0.28)
    """How far the ratio may move."""
    correction: SamplerCorrection = SamplerCorrection("token", 2.0)
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}

    def compose(self) -> Composition:
        """The four answers."""
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, correction=self.correction)
        return group_policy_gradient(self, Weighted(surrogate))
