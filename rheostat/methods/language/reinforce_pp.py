"""REINFORCE++: REINFORCE with PPO's clip and an advantage whitened over the whole batch.

Paper: Hu 2025, arXiv 2501.03262.

Equations
    r_t  = -beta (log pi_old - log pi_ref)_t + R at the last token,      return-to-go G_t = sum_{s>=t} r_s
    A_t  = (G_t - mean) / sqrt(var + 1e-8) over all tokens of the batch,       loss = token mean of the clipped surrogate

What differs from grpo: no groups (every completion may have its own prompt), the baseline is the batch, the KL is part of the token
rewards, tokens weigh equally. ``advantage=reinforce-pp-baseline`` subtracts the group's mean first (the paper's variant for several
completions per prompt).
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
from rheostat.learner.language import LossKL, RewardKL, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class ReinforcePP:
    """The paper's setting; several completions per prompt are allowed."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("reinforce-pp")
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL | RewardKL = RewardKL(0.01)
    """The KL to the starting model: part of the token rewards, or in the loss."""
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
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, correction=self.correction)
        return group_policy_gradient(self, Weighted(surrogate))
