"""GMPO: geometric-mean policy optimisation.

Paper: Zhao et al. 2025, arXiv 2507.20673; in verl's adaptation (``geo_mean``), the authors' own code was not read.

Equations (s = sign A, d = log ratio)
    u_it = s min(s d_it, s clip(d_it, -0.4, 0.4)),      ratio_i = exp(mean_t u_it),      loss = mean_i -A_i ratio_i

What differs from grpo: the geometric instead of the arithmetic mean over tokens, which one outlying token cannot dominate, and a clip in
log space. No KL.
Checked against: verl 0.8.0.dev (``tests/vectors``: baselines-llm).
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
from rheostat.objectives.clipping import LogClip
from rheostat.objectives.terms import PolicyGradient
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class GMPO:
    """The paper's window."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: LogClip = LogClip(0.4, 0.4)
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
        """The four answers: one ratio per completion, with the gradient through the mean of its clipped token log-ratios."""
        return group_policy_gradient(self, Weighted(PolicyGradient(Tokens(self.aggregate), self.clip, "sequence")))
