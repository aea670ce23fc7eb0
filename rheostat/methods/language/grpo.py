"""GRPO: group relative policy optimisation.

Paper: Shao et al. 2024, DeepSeekMath, arXiv 2402.03300.

Equations (G completions per prompt, R_i their rewards, old = the policy when this update began)
    A_i      = (R_i - mean_g R) / (std_g R + eps)
    ratio_it = pi(y_it | x, y_i<t) / pi_old(y_it | x, y_i<t)
    loss     = mean_i 1/|y_i| sum_t [ -min(ratio A, clip(ratio, 1 - eps_low, 1 + eps_high) A) + beta k3(pi, reference) ]

WHO ACTS   the policy itself samples ``group_size`` completions for each of ``prompts_per_batch`` prompts.
KEPT       the fresh batch, for ``epochs`` x ``minibatches`` gradient steps.
WORTH      a verifier's reward, relative to the group.
MOVES      the clipped surrogate on tokens, a KL to the starting model inside the loss.

Every part is an option here (advantage, ratio, clip, aggregation, KL, sampler correction): the other published methods of this family are
other answers to the same questions, each in its own file.

What implementations do differently: the standard deviation is unbiased in verl and TRL; eps is 1e-6 in verl (here) and 1e-4 in TRL; verl
adds a dual clip of 3, TRL none (here); TRL's default has no KL. A row whose verifier failed is masked and leaves the group's statistics.
Checked against: verl 0.8.0.dev and TRL 1.16.0, number by number (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Dynamic, Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, OverlongPenalty
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, RewardKL, dynamic, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip, LogClip
from rheostat.objectives.ratio import RatioKind
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class GRPO:
    """DeepSeekMath's setting, with batch sizes for one machine."""

    groups: Groups = Groups()
    dynamic: Dynamic | None = None
    """Keep only groups whose rewards differ, and sample until the batch is full."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    overlong: OverlongPenalty = OverlongPenalty()
    ratio: RatioKind = option("token")
    """Ratio per token, or one per row."""
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio may move: PPO's clip; BAPO's searched one, on the ratio to whoever sampled; Clip-Cov's and KL-Cov's, which hold
    tokens of large covariance back; CISPO's clipped constant weight; GMPO's clip in log space; nothing."""
    clamp_log_ratio: bool = option(True)
    """Clamp token log-ratios to +-20 before exponentiating, as verl does: keeps wild ratios finite and changes nothing else."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("sequence-mean")
    kl: LossKL | RewardKL = LossKL(0.04)
    """The KL to the starting model: in the loss, or part of the reward."""
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "kl_coefficient": 0.0}}

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.ratio == "token" and not isinstance(self.clip, LogClip):
            return {}
        return {"clamp_log_ratio": "only ratios of single tokens are clamped, before any clip of their logarithm; leave it alone"}

    def compose(self) -> Composition:
        """The four answers."""
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, self.ratio, self.clamp_log_ratio, self.correction)
        return group_policy_gradient(self, Weighted(surrogate), collect=dynamic(self.dynamic, self.groups), overlong=self.overlong)
