"""REINFORCE: the policy gradient and nothing else.

Paper: Williams 1992.

Equation
    loss = mean over completions of sum_t -(R_i - mean_g R) log pi(y_it)

What differs from grpo: no ratio, no clip, no deviation, no KL; one gradient step per batch, because a second would be off-policy without
a correction. The baseline is the group's mean (``advantage=reward`` leaves it out).
Checked against: verl 0.8.0.dev's ``gpg`` loss (``tests/vectors``: baselines-llm).
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
from rheostat.objectives.terms import OneStepLikelihood, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class Reinforce:
    """One step, no limit."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("mean-baseline")
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("sequence-sum")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    fixed: ClassVar[frozenset[str]] = frozenset({"dial.updates_per_batch", "update.epochs", "update.minibatches"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "kl_coefficient": 0.0}}

    def compose(self) -> Composition:
        """The four answers: the log-likelihood itself, weighted by the advantage."""
        likelihood = OneStepLikelihood(Tokens(self.aggregate), DetachedClip(), correction=self.correction)
        return group_policy_gradient(self, Weighted(likelihood))
