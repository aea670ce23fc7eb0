"""KTO: Kahneman-Tversky optimisation, from single answers that are desirable or not.

Paper: Ethayarajh et al. 2024, arXiv 2402.01306.

Equations (h the log-ratio of an answer to the reference, z the mean log-ratio of prompts with the answers of others, at least 0)
    loss = mean of lambda_D (1 - sigmoid(beta (h - z))) over desirable answers and lambda_U (1 - sigmoid(beta (z - h))) over others

WHO ACTS   no one: an annotator has labelled single answers (``--preferences FILE``; a pair is one desirable answer and one that is not).
           With ``data sampled`` the policy itself, whose completions are desirable from a reward on.
KEPT       the labelled answers of a batch.
WORTH      the label.
MOVES      a value of gains and losses relative to z, which saturates on both sides: very good and very bad answers teach little.

What differs from dpo: no pairs, and a reference point. z is a constant that is measured on every gradient step, over all of it: each prompt
with the answer of the row before it, in two passes without a gradient. Nothing flows through it. A step of one answer is refused, since z
would be its own log-ratio. Where one label is rarer, weigh it so that ``desirable_weight n_D / (undesirable_weight n_U)`` is in [1, 4/3].

What the released code does differently: TRL skips answers whose loss is NaN; here a loss that is not finite ends the run with the batch.
Checked against: TRL 1.16.0, executed (``tests/vectors``: baselines-preference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.judged_answers import LabelledAnswers, OwnLabels
from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.credit.annotations import ModelScores
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import policy_models
from rheostat.learner.language_preferences import measure
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen
from rheostat.learner.update import Update
from rheostat.objectives import unpaired_terms
from rheostat.options import option
from rheostat.parts import Weighted


@dataclass(frozen=True)
class KTO:
    """TRL's settings."""

    data: LabelledAnswers | OwnLabels = LabelledAnswers()
    """Labelled answers of a file, or completions of the policy's own that a reward labels (sampled)."""
    beta: float = option(0.1, above=0)
    """Scale of the log-ratios: the smaller, the further the policy may go from the reference."""
    desirable_weight: float = option(1.0, at_least=0)
    """Weight lambda_D of desirable answers."""
    undesirable_weight: float = option(1.0, at_least=0)
    """Weight lambda_U of the others."""
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1e-6)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "answers_per_batch": 32}}

    def compose(self) -> Composition:
        """The four answers."""
        term = unpaired_terms.KTO(beta=self.beta, desirable_weight=self.desirable_weight, undesirable_weight=self.undesirable_weight)
        return Composition(
            collect=self.data,
            retain=[Valid()],
            credit=[ModelScores()],
            improve=[self.update.of(Weighted(term, name="preference"))],
            models=policy_models(self.update) | {"reference": Frozen()},
            measure=measure,
        )
