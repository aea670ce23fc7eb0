"""GHPO: guided hybrid policy optimisation, hints for the prompts on which the whole group fails.

Paper: Liu et al. 2025, arXiv 2507.10628.

Equations (a = accuracy of a completion, R = its whole reward, q = prompt, h = reference solution, w in (1/4, 1/2, 3/4))
    q* = q                                     if any of the G completions has a > 0
    q* = q + the first w of h                  otherwise, for the next w, until a group has a success or w runs out
    A      = (R - mean_g R) / (std_g + 1e-4)   of the group that was sampled last
    loss   = 1/(sum_i |y_i|) sum_i sum_t -min(ratio A, clip(ratio, 0.8, 1.2) A) + beta k3,   all conditioned on q*

WHO ACTS   the policy, on plain prompts first; groups without a single success are sampled again from prompts with a hint of 25, 50 and
           75 % of the solution (a file of experts, a column, or the task's expert). A hard prompt costs up to four groups.
KEPT       of every prompt the group sampled last. A group that fails with the longest hint too is kept with it.
WORTH      as in grpo. Difficulty looks at the accuracy alone (``accuracy_part``), never at a reward for the format, so a failing group can
           still have an advantage.
MOVES      as in grpo with tokens that weigh equally, on q* in numerator and denominator. Hint tokens are prompt tokens: no loss.

What differs from grpo: the hints, eps 1e-4, tokens that weigh equally, no KL. Measurements are of plain prompts (``reward`` in the log is
with hints, ``reward_plain`` without).

Paper and code. The paper's equation samples from q and takes the ratio on q*; its code samples again from q*, which is the only
consistent reading and what is done here. The staged hints are known from the code; the authors' description of their schedule was not
available (reconstruction). Where the code is wrong this is not: with several gradient steps per batch or a KL it computes the old and the
reference log-probabilities from the tokens sampled first, while masks belong to those sampled last; here both are of the kept rows. It
cuts hints by characters (``hint_unit characters``), here by tokens. It truncates prompts from the left, so that a long hint pushes out the
system prompt; here a hint that does not fit is not given, and counted. The cold start without hints is 20 updates in the paper and 0 in
the released configuration. A member without a grade keeps its group plain, as in the code. The released learning rate has a warm-up and a
cosine; here ``warmup`` only.
Checked against: the authors' code for the loss, an independent statement of its control flow (``tests/vectors``: ghpo).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.hints import Hints
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class GHPO:
    """The paper's setting; its batch is 196 prompts x 8 completions."""

    groups: Groups = Groups(196, 8)
    hints: Hints = Hints()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo", 1e-4)
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio may move."""
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

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 2e-4, "prompts_per_batch": 24, "hint_after": 0, "hint_place": "answer"}
    }

    def compose(self) -> Composition:
        """The four answers."""
        surrogate = PolicyGradient(Tokens(self.aggregate), self.clip, correction=self.correction)
        return group_policy_gradient(self, Weighted(surrogate), collect=self.hints.over(self.groups))
