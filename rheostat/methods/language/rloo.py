"""RLOO: REINFORCE with a leave-one-out baseline.

Paper: Ahmadian et al. 2024, "Back to Basics", arXiv 2402.14740.

Equations
    A_i  = R_i - mean of the others' R,       R_i = reward_i - beta sum_t (log pi_old - log pi_ref)
    loss = mean_i -min(ratio_i A_i, clip(ratio_i, 1 +- 0.2) A_i),       ratio_i = exp(sum_t log pi - log pi_old)

What differs from grpo: the baseline leaves the completion itself out, which keeps the gradient unbiased; no division by a deviation; the
KL is part of the reward; the whole completion is one action with one ratio (TRL's form; with one gradient step per batch it is REINFORCE).
Checked against: verl 0.8.0.dev (advantage) and TRL 1.16.0 (loss) (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, RewardKL, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.ratio import RatioKind
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class RLOO:
    """TRL's form."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("rloo")
    ratio: RatioKind = option("sequence-product")
    """The completion is one action; or a ratio per token."""
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("sequence-mean")
    kl: LossKL | RewardKL = RewardKL(0.05)
    """The KL to the starting model: part of the reward, or in the loss."""
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "kl_coefficient": 0.0}}

    def compose(self) -> Composition:
        """The four answers."""
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, self.ratio, correction=self.correction)
        return group_policy_gradient(self, Weighted(surrogate))
