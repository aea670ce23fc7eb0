"""GSPO: group sequence policy optimisation.

Paper: Zheng et al. 2025, arXiv 2507.18071.

Equations
    s_i  = exp( 1/|y_i| sum_t (log pi(y_it) - log pi_old(y_it)) )                  (the geometric mean of the token ratios)
    loss = mean_i -min(s_i A_i, clip(s_i, 1 - 3e-4, 1 + 4e-4) A_i)

What differs from grpo: one ratio per completion, clipped in a very narrow window, so that about half of the completions are limited at
any realistic drift; that is intended. The ratio is spread over the tokens with each token's own gradient (verl's form); TRL's gradient
through the mean is the same for a row-constant advantage. No KL.
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
from rheostat.objectives.ratio import RatioKind
from rheostat.objectives.terms import PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class GSPO:
    """The paper's window; several gradient steps per batch, without which a ratio does nothing."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    ratio: RatioKind = option("sequence-token")
    """One ratio per completion: spread over its tokens, each with its own gradient (verl), or with the gradient through the mean (TRL)."""
    clip: Clip = Clip(3e-4, 4e-4)
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("sequence-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(minibatches=4)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}

    def compose(self) -> Composition:
        """The four answers."""
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, self.ratio, correction=self.correction)
        return group_policy_gradient(self, Weighted(surrogate))
