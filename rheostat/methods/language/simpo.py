"""SimPO: simple preference optimisation, on mean log-probabilities and without a reference; with sums it is CPO.

Papers: Meng et al. 2024, arXiv 2405.14734; Xu et al. 2024, "Contrastive Preference Optimization", arXiv 2401.08417 (preset ``cpo``).

Equations (A the mean log-probability of an answer's tokens, S their sum)
    simpo  loss = mean over pairs of -log sigmoid(beta (A_w - A_l) - gamma)
    cpo    loss = mean over pairs of -log sigmoid(beta (S_w - S_l)) + alpha NLL(y_w)

WHO ACTS   no one: an annotator has written down both answers (``--preferences FILE``). With ``data sampled`` the policy itself, or with
           ``dial.refresh_every`` a copy of it.
KEPT       every pair, whole.
WORTH      which of the two was preferred.
MOVES      the sigmoid link on differences of log-probabilities, which asks for a margin of gamma.

What differs from dpo: no reference, so nothing holds the policy near its start but the step size; a mean per token, so that length does not
pay; a target margin. ``reduction sum``, ``gamma 0`` and ``likelihood_coefficient 1`` are CPO. The likelihood of chosen answers is a mean
over the tokens of all of them.

What the released code does differently: TRL's trainer keeps the likelihood of CPO (its ``alpha`` stays 1) where SimPO is chosen; set
``likelihood_coefficient 1`` for that. It subtracts ``gamma / beta`` inside and multiplies by beta after, which is the same. An empty answer
gives it NaN.
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
from rheostat.objectives.preference_terms import ChosenLikelihood, Reduction, ReferenceFree
from rheostat.options import option
from rheostat.parts import Weighted


@dataclass(frozen=True)
class SimPO:
    """The paper's loss in the middle of its ranges."""

    data: PairSource = Pairs()
    """Pairs of a file that an annotator has written (file), or pairs of the policy's own that a reward orders (sampled)."""
    link: Literal["sigmoid", "hinge", "ipo"] = option("sigmoid")
    """From the log-probabilities of a pair to a loss; see :mod:`rheostat.objectives.preference`."""
    reduction: Reduction = option("mean")
    """The log-probability of an answer is the mean over its tokens (SimPO) or their sum (CPO)."""
    beta: float = option(2.0, above=0)
    """Scale of the log-probabilities."""
    gamma: float = option(0.5, at_least=0)
    """Margin that the sigmoid link asks for, after the scale; the paper takes a quarter to a half of beta."""
    label_smoothing: float = option(0.0, at_least=0, below=0.5)
    """Share of labels taken as flipped (link sigmoid)."""
    likelihood_coefficient: float = option(0.0, at_least=0)
    """Weight of the negative log-likelihood of chosen answers."""
    start: StartComparison = StartComparison()
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1e-6)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 2e-4, "pairs_per_batch": 16},
        "cpo": {"reduction": "sum", "beta": 0.1, "gamma": 0.0, "likelihood_coefficient": 1.0},
    }

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = f"the link {self.link} knows none; choose sigmoid, or leave it at 0"
        return {} if self.link == "sigmoid" else {"label_smoothing": why, "gamma": why}

    def compose(self) -> Composition:
        """The four answers."""
        term = ReferenceFree(link=self.link, beta=self.beta, gamma=self.gamma, smoothing=self.label_smoothing, reduction=self.reduction)
        likelihood = Weighted(ChosenLikelihood(), self.likelihood_coefficient, "likelihood")
        return from_pairs(self, term, *([likelihood] if self.likelihood_coefficient else []), start=self.start)
