"""NFT: negative-aware fine-tuning, maximum likelihood that also learns from wrong answers.

Paper: Chen et al. 2025, "Bridging Supervised Learning and Reinforcement Learning in Math Reasoning", arXiv 2505.18116; code: NVlabs/NFT.

Equations (c = 1 where the answer is right, r = share of right answers in the group, R = pi / pi_old per token)
    N    = (1 - r R) / (1 - r)                                       likelihood ratio of the implied negative policy
    loss = 1/1000 sum over tokens of w(r) [ -c log R - k (1 - c) log max(N, 1) ],     w(r) = 1 - r

WHO ACTS   the policy samples ``group_size`` completions for each of ``prompts_per_batch`` prompts.
KEPT       prompts that are neither all right nor all wrong, sampled until the batch is full; ``minibatches`` gradient steps on it.
WORTH      no advantage: the label c and the group's rate r are all that is used.
MOVES      maximum likelihood of right answers, and of wrong ones under the policy that is left of the old one without the right.

What differs from grpo: no clip (the positive term is supervised learning whatever R is), a maximum with derivative 1 everywhere instead of
one for wrong answers, a sum over tokens divided by 1000 (so that the limit on the gradient's norm sets the step, as in the released code).
Strictly on-policy its gradient is GRPO's with the population's deviation (``prompt_weight odds``) or Dr. GRPO's (``wrong-share``).
``negative_weight 0`` is rejection-sampling fine-tuning.

What the released code does differently: its rewards are 1 and -1, and with penalties for length its labels are soft; here rows count as
right from ``threshold`` on (the released scripts switch those penalties off). It asserts 0 < r < 1, and here groups without both kinds are
left out; both clamp r to [0.02, 0.98]. A negative ``clamp_negative`` of it stands for its size, a negative weight for another method: both
are refused here.
Checked against: the authors' code for the group statistics, its loss transcribed line by line (``tests/vectors``: nft).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Dynamic, Groups, SamplingOptions
from rheostat.credit.annotations import LabelsAndRates, OldScores
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, dynamic, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.negative_aware import NegativeAware, PromptWeight
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class NFT:
    """The 7B setting, with batch sizes for one machine."""

    groups: Groups = Groups(16, 16)
    dynamic: Dynamic | None = Dynamic()
    """Keep only groups whose rewards differ, and sample until the batch is full."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    labels: LabelsAndRates = LabelsAndRates()
    prompt_weight: PromptWeight = option("wrong-share")
    """w(r) of a prompt: 1, 1 - r, or sqrt((1 - r) / r); the released code's normalize 0, 1, 2."""
    negative_weight: float = option(1.0, at_least=0)
    """Weight k of wrong answers; 0 is rejection-sampling fine-tuning."""
    floor: float = option(1.0, above=0)
    """Least likelihood ratio of the implied negative policy (the released clamp_negative)."""
    ratio: Literal["token", "sequence"] = option("token")
    """Likelihood ratio per token, or of the whole completion."""
    divisor: float = option(1000.0, above=0)
    """What the sum over tokens (or completions) is divided by."""
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(minibatches=16, warmup=10, weight_decay=0.1)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "minibatches": 4, "warmup": 0, "weight_decay": 0.0}}

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.negative_weight else {"floor": "it is of wrong answers, whose negative_weight is 0; leave it alone"}

    def compose(self) -> Composition:
        """The four answers."""
        tokens = Tokens(Aggregate("token-mean"))
        likelihood = NegativeAware(tokens, self.prompt_weight, self.negative_weight, self.floor, self.ratio, self.divisor)
        return Composition(
            collect=dynamic(self.dynamic, self.groups),
            retain=[self.keep],
            credit=[OldScores(), *self.kl.annotations, self.labels],
            improve=[
                self.update.of(Weighted(likelihood), *regularisers(self, tokens)),
            ],
            models=policy_models(self.update, self.kl),
        )
