"""IPO: identity preference optimisation, whose margin has a target instead of growing without end.

Paper: Azar et al. 2023, arXiv 2310.12036.

Equations (w and l the log-ratios of the chosen and the rejected answer to the reference, n their lengths)
    sum     loss = mean over pairs of (w - l - 1 / (2 beta))^2
    mean    loss = mean over pairs of (w / n_w - l / n_l - 1 / (2 beta))^2
    scaled  loss = mean over pairs of (beta (w - l) - 1 / 2)^2

WHO ACTS   no one: an annotator has written down both answers (``--preferences FILE``). With ``data sampled`` the policy itself, or with
           ``dial.refresh_every`` a copy of it.
KEPT       every pair, whole.
WORTH      which of the two was preferred.
MOVES      a squared distance of the margin to 1 / (2 beta), which is finite even where the annotator never errs.

What differs from dpo: the link. Three scales are in circulation and are not interchangeable at one beta: ``scale sum`` is the paper's,
``mean`` that of TRL's trainer of pairs, and ``scaled`` that of Tang et al. 2024 (arXiv 2405.08448), which is ``beta^2`` times the paper's
and has its optimum. TRL's online trainer takes sums, its CPO trainer means of log-probabilities.
Checked against: TRL 1.16.0, executed (``tests/vectors``: baselines-preference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.collect.language.pairs import Pairs
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language_preferences import PairSource, from_pairs
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.preference import Link
from rheostat.objectives.preference_terms import PreferenceTerm
from rheostat.options import option

Scale = Literal["sum", "mean", "scaled"]
LINKS: dict[Scale, Link] = {"sum": "ipo", "mean": "ipo-mean", "scaled": "ipo-scaled"}


@dataclass(frozen=True)
class IPO:
    """The paper's loss at TRL's step size."""

    data: PairSource = Pairs()
    """Pairs of a file that an annotator has written (file), or pairs of the policy's own that a reward orders (sampled)."""
    scale: Scale = option("sum")
    """Sums of log-ratios as in the paper, their means per token as in TRL's trainer, or sums with beta on the margin."""
    beta: float = option(0.1, above=0)
    """The margin's target is 1 / (2 beta): the smaller, the further the policy may go from the reference."""
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1e-6)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "pairs_per_batch": 16}}

    def compose(self) -> Composition:
        """The four answers."""
        return from_pairs(self, PreferenceTerm(link=LINKS[self.scale], beta=self.beta))
