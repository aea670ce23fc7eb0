"""SFT: supervised fine-tuning on demonstrations.

Equation
    loss = -1/(sum_i |y_i|) sum_i sum_t log pi(y_it | x, y_i<t)

WHO ACTS   an expert: the run's file of expert rows, the ``completion`` column of the prompts' rows, or the task's own expert.
What differs from grpo: nothing is sampled or graded; every demonstrated token has weight 1, in every gradient step on a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.collect.language.language_collectors import Demonstrations, SamplingOptions
from rheostat.credit.annotations import OldScores
from rheostat.learner.context import Budget, Evaluation
from rheostat.learner.dial import Dial
from rheostat.learner.language import policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.terms import Likelihood
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class SFT:
    """Plain maximum likelihood."""

    demonstrations: Demonstrations = Demonstrations(128)
    sampling: SamplingOptions = SamplingOptions()
    aggregate: Aggregate = Aggregate("token-mean")
    update: Update = Update(learning_rate=1e-5)
    evaluation: Evaluation = Evaluation()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 1e-3}}

    def compose(self) -> Composition:
        """The four answers."""
        return Composition(
            collect=self.demonstrations,
            retain=[],
            credit=[OldScores()],
            improve=[self.update.of(Weighted(Likelihood(Tokens(self.aggregate))))],
            models=policy_models(self.update),
        )
