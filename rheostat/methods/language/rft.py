"""RFT: rejection-sampling fine-tuning.

Paper: Yuan et al. 2023, arXiv 2308.01825 (also RAFT, Dong et al. 2023; expert iteration).

Equation
    loss = -1/(sum over kept |y_i|) sum over kept sum_t log pi(y_it | x, y_i<t),       kept = completions with reward >= threshold

What differs from grpo: what is kept. Wrong completions are dropped, right ones are imitated with weight 1: no baseline, no negative signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import AtLeast, Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import OldScores
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.terms import Likelihood
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class RFT:
    """Imitate what was right."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    right: AtLeast = AtLeast(1.0)
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.0)
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
        tokens = Tokens(self.aggregate)
        return Composition(
            collect=self.groups,
            retain=[self.keep, self.right],
            credit=[OldScores(), *self.kl.annotations],
            improve=[self.update.of(Weighted(Likelihood(tokens)), *regularisers(self, tokens))],
            models=policy_models(self.update, self.kl),
        )
