"""DAPO: decoupled clip and dynamic sampling policy optimisation.

Paper: Yu et al. 2025, arXiv 2503.14476.

Equations
    loss    = 1/(sum_i |y_i|) sum_i sum_t -min(ratio A, clip(ratio, 1 - 0.2, 1 + 0.28) A)          (clip-higher, token mean)
    keep    a group only if its rewards differ; sample until the batch is full                     (dynamic sampling)
    reward += min(-(|y| - (L_max - L_buffer)) / L_buffer, 0)                                       (soft overlong punishment)

What differs from grpo: the upper clip is wider, so that unlikely tokens can grow; tokens, not completions, weigh equally; groups that
teach nothing are replaced; long completions are discouraged softly; no KL. The overlong buffer is a quarter of the limit here unless
given (the paper: 4096 of 20480).
Checked against: verl 0.8.0.dev (``tests/vectors``: baselines-llm; the filter and the penalty are transcribed from its formulas).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Dynamic, Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, OverlongPenalty
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, dynamic, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class DAPO:
    """The paper's four changes."""

    groups: Groups = Groups()
    dynamic: Dynamic | None = Dynamic()
    """Keep only groups whose rewards differ, and sample until the batch is full."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    overlong: OverlongPenalty = OverlongPenalty(None)
    clip: AnyClip = Clip(0.2, 0.28)
    """How far the ratio may move: clip-higher, or another rule."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "overlong_buffer": 8}}

    def compose(self) -> Composition:
        """The four answers."""
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, correction=self.correction)
        return group_policy_gradient(self, Weighted(surrogate), collect=dynamic(self.dynamic, self.groups), overlong=self.overlong)
