"""CISPO: clipped importance-sampling weights instead of clipped updates.

Paper: MiniMax 2025, MiniMax-M1, arXiv 2506.13585.

Equation
    loss = 1/(sum_i |y_i|) sum_i sum_t - sg[ min(ratio_it, 1 + eps_high) ] A_i log pi(y_it)

What differs from grpo: no token ever loses its gradient; a large ratio is only weighted down. There is no lower bound (``clip_low``
None), tokens weigh equally, and there is no KL. TRL's epsilon_high is the cap itself, not 1 + epsilon_high.
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
from rheostat.objectives.clipping import DetachedClip
from rheostat.objectives.terms import PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class CISPO:
    """The upper bound is tuned in the paper; 0.28 is Trinity's."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: DetachedClip = DetachedClip(None, 0.28)
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
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
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, correction=self.correction)
        return group_policy_gradient(self, Weighted(surrogate))
