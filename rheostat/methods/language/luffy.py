"""LUFFY: learning to reason under off-policy guidance.

Paper: Yan et al. 2025, arXiv 2504.14945.

Equations
    A     = R - mean_g R,       the expert's completion is a member of the group
    on-policy tokens   -ratio A                         (no clip, as released)
    expert tokens      -f(p) A,   f(p) = p / (p + 0.1),   p = pi(expert token): unlikely tokens learn faster than under -p A
    loss  = sum over tokens / T

WHO ACTS   the policy samples ``group_size`` - 1 completions per prompt; an expert adds one.
What differs from grpo: the mixed group, the shaped expert term, no clip, no deviation, a constant denominator (rows x longest
completion; the released code divides by the padded width of the batch).
Checked against: the authors' code (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, group_policy_gradient, with_experts_inside
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import NoClip
from rheostat.objectives.foreign_terms import ShapedExperts
from rheostat.objectives.terms import PolicyGradient
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted
from rheostat.trajectories import Source


@dataclass(frozen=True)
class LUFFY:
    """The released flags."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("mean-baseline")
    shaping: float = option(0.1, above=0)
    """gamma of f(p) = p / (p + gamma)."""
    aggregate: Aggregate = Aggregate("constant")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    fixed: ClassVar[frozenset[str]] = frozenset({"dial.expert_share"})
    """Every group has an expert already."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}

    def compose(self) -> Composition:
        """The four answers."""
        own = PolicyGradient(Tokens(self.aggregate, without=Source.EXPERT), NoClip(), clamp_log_ratio=False)
        experts = ShapedExperts(Tokens(self.aggregate, only=Source.EXPERT), self.shaping)
        collect = with_experts_inside(self.groups, 1)
        return group_policy_gradient(self, Weighted(own), Weighted(experts, name="expert"), collect=collect)
