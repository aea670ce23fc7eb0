"""AceReason: strictly on-policy GRPO, in stages of growing length and difficulty, mathematics before code.

Paper: Chen et al. 2025, "AceReason-Nemotron: Advancing Math and Code Reasoning through Reinforcement Learning", arXiv 2505.16400.

Equations (G completions per prompt, R_i their rewards; r_it = pi / sg(pi), which is 1 in value)
    A_i      = (R_i - mean_g R) / (std_g R + eps)
    J        = 1/(sum_i |y_i|) sum_i sum_t r_it A_i
    grad J   = 1/(sum_i |y_i|) sum_i sum_t A_i grad log pi(y_it | x_i, y_i<t)

WHO ACTS   the policy itself, in the weights that this very update changes.
KEPT       the fresh batch for one gradient step; with ``easy drop``, a prompt whose whole group was right is never asked again.
WORTH      a verifier's 0 or 1, relative to the group: the right answer of mathematics, or all tests of a program.
MOVES      one step per batch, a mean over the tokens of the whole batch, no KL, no entropy bonus.

What differs from grpo: one gradient step whatever the batch, so that no ratio ever differs from 1 and no clip ever acts; long completions
weigh more than short ones. The clip of 0.2 and the dual clip of 3 are there for the ablation that takes several steps (``minibatches 4``),
after which the paper sees the entropy collapse. Groups whose rewards are all equal give no gradient, and their tokens stay in the mean.

The curriculum is a recipe: the limit on length grows from stage to stage, and the long stages train on prompts that the policy of their
beginning solves in at most 6 of 16 attempts (``pass_rate = [0.0, 0.375]``, ``pass_rate_samples = 16``); see the page on curricula.

What the framework does otherwise: the authors trained with veRL, where a group of one completion is worth its raw reward; here it is worth
0. Reconstruction: the sample deviation and eps, which are veRL's defaults; that a completion that was cut is wrong and stays in the mean
(``mask_truncated`` leaves it out); that a prompt is easy when its whole group is right; the temperature of mathematics; the lengths of the
stages in steps; that an optimiser begins anew with its stage (the paper does not say).
Checked against: veRL, number by number (``tests/vectors``: acereason).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.gates import EasyDropped
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import PolicyGradient
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class AceReason:
    """The paper's setting, with batch sizes for one machine."""

    groups: Groups = Groups(32, 8)
    easy: Literal["keep", "drop"] = option("keep")
    """What becomes of a prompt whose whole group is right: it comes again in the next epoch, or never (the second stage of code)."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: Clip = Clip(0.2, 0.2, dual=3.0)
    clamp_log_ratio: bool = option(True)
    """Clamp token log-ratios to +-20 before exponentiating, as verl does."""
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
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, clamp_log_ratio=self.clamp_log_ratio)
        collect = EasyDropped(inner=self.groups) if self.easy == "drop" else self.groups
        return group_policy_gradient(self, Weighted(surrogate), collect=collect)
