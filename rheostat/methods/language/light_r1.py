"""Light-R1: the last stage of a recipe of four, GRPO whose reward knows the length of a completion.

Paper: Wen et al. 2025, "Light-R1: Curriculum SFT, DPO and RL for Long COT from Scratch and Beyond", arXiv 2503.10460.

The recipe is ``rheostat train light-r1.toml``, and every stage is a method that can be used alone:

    easy        sft on an expert's answers to easy prompts
    hard        sft on those to hard ones, from there, with a smaller step
    preference  dpo --link nca --data taught: the expert's right answer against a wrong one of the policy, in batches that are sampled by
                the policy of the stage's start (``dial.refresh_every 0``): semi-on-policy
    reinforce   this method, on prompts that its first policy solves neither always nor never (``pass_rate``)

Equations of this stage (g the length of a completion, M its limit, lo and hi the ends of a range)
    R     = exceed                                         where g + 16 >= M, right or wrong
    R     = lo + (hi - lo) (1 + cos(pi g / M)) / 2         of right completions; of wrong ones lo and hi are exchanged
    A_i   = (R_i - mean_g R) / (std_g R + eps)
    loss  = mean over tokens of max(-r A, -clip(r, 1 - eps_low, 1 + eps_high) A) + beta k3(pi, reference)

WHO ACTS   the present policy, ``group_size`` completions for each of ``prompts_per_batch`` prompts.
KEPT       the fresh batch, for one gradient step, at which every ratio is 1.
WORTH      whether it is right, and its length: short right answers are only weakly preferred.
MOVES      the clipped surrogate on tokens, all tokens alike, and a small KL to the start of the stage.

What differs from grpo: the length reward, the mean over tokens, the KL's weight, groups of eight.

What is reconstruction: the report says that short right answers are preferred weakly, without numbers (ours: .9 to 1 and -1 to -.5). Its
clip of importance weights is in no released code; read as "tokens of negative advantage whose ratio is above 1 + eps teach nothing", it is
``--clip-upper 1.2``. The stage called DPO there is NCA; ``--link sigmoid`` is DPO. The average of checkpoints is left out.
What the released code does differently: means over tokens are those of a micro-batch; here they are of a gradient step.
Checked against: the authors' code and that of the length reward (``tests/vectors``: light-r1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, LengthReward
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
class LightR1:
    """The script's settings, with batch sizes for one machine."""

    groups: Groups = Groups(16, 8)
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    length: LengthReward | None = LengthReward()
    """What a completion earns by its length; none takes the reward as it is."""
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: Clip = Clip(0.2, 0.2)
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.001)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "length_margin": 1}}

    def compose(self) -> Composition:
        """The four answers."""
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip)
        return group_policy_gradient(self, Weighted(surrogate), overlong=self.length)
