"""ORPO: odds-ratio preference optimisation, fine-tuning and preferences in one loss, without a reference.

Paper: Hong et al. 2024, arXiv 2403.07691.

Equations (A the mean log-probability of an answer's tokens)
    o    = (A_w - A_l) - [log(1 - exp A_w) - log(1 - exp A_l)]
    loss = NLL(x, y_w) - lambda mean over pairs of log sigmoid(o)

WHO ACTS   no one: an annotator has written down both answers (``--preferences FILE``). With ``data sampled`` the policy itself, or with
           ``dial.refresh_every`` a copy of it.
KEPT       every pair, whole.
WORTH      which of the two was preferred.
MOVES      the likelihood of the chosen answer, and the log odds ratio of both.

What differs from dpo: no reference; the likelihood holds the policy at the chosen answers. What differs from simpo: odds instead of
probabilities, which weigh sure answers more.

Details: NLL is a mean over the tokens of the prompts and of the chosen answers, as in TRL and the authors' code, which takes a forward pass
of its own; ``likelihood_of answer`` leaves the prompts out. The odds of an answer that is certain are infinite: A is at most -1e-6 here.
``log(1 - exp A)`` is computed in the form that keeps its digits on either side of -log 2, where TRL uses one of them in single precision.
Checked against: TRL 1.16.0, executed (``tests/vectors``: baselines-preference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.collect.language.pairs import Pairs
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language_preferences import PairSource, StartComparison, from_pairs
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.preference_terms import ChosenLikelihood, OddsRatio
from rheostat.options import option
from rheostat.parts import Weighted


@dataclass(frozen=True)
class ORPO:
    """TRL's weight and step size."""

    data: PairSource = Pairs()
    """Pairs of a file that an annotator has written (file), or pairs of the policy's own that a reward orders (sampled)."""
    odds_coefficient: float = option(0.1, above=0)
    """Weight lambda of the odds ratio beside the likelihood."""
    likelihood_of: Literal["whole", "answer"] = option("whole")
    """Whose tokens the likelihood is a mean over: prompt and chosen answer, or the answer alone."""
    start: StartComparison = StartComparison()
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1e-6)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "pairs_per_batch": 16}}

    def compose(self) -> Composition:
        """The four answers."""
        likelihood = Weighted(ChosenLikelihood(prompts=self.likelihood_of == "whole"), 1.0, "likelihood")
        return from_pairs(self, OddsRatio(), likelihood, start=self.start, coefficient=self.odds_coefficient)
