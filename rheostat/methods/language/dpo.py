"""DPO: direct preference optimisation, a policy from preference pairs without a reward model.

Paper: Rafailov et al. 2023, arXiv 2305.18290.

Equations (y_w preferred to y_l, sums over the tokens of an answer)
    w    = sum log pi(y_w | x) - log pi_ref(y_w | x),      l the same of y_l
    loss = -mean over pairs of log sigmoid(beta (w - l))

WHO ACTS   no one: an annotator has written down both answers (``--preferences FILE``). With ``data sampled`` the policy itself, or with
           ``dial.refresh_every`` a copy of it: the best and the worst of its answers are the pair.
KEPT       every pair, whole: its two rows fall into the same gradient step and the same micro-batch.
WORTH      which of the two was preferred, by the annotator or by the reward.
MOVES      the sigmoid link on the difference of log-ratios to the starting model; ``link`` takes the others of the field.

What differs from grpo: no sampling, no reward, no ratio to an old policy and no clip; the KL to the starting model is implied by the
log-ratios. What implementations do differently: IPO is on sums in its paper and per token in TRL's trainer (``ipo``, ``ipo-mean``);
TRL 1.16.0 ignores label smoothing for the plain sigmoid, here it acts (conservative DPO). Measurements are of held-out pairs, and where
completions can be graded of samples beside those of the starting model.
Checked against: TRL 1.16.0, executed (``tests/vectors``: baselines-preference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.collect.language.pairs import Pairs
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language_preferences import PairSource, from_pairs
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.preference import Link, check_link
from rheostat.objectives.preference_terms import PreferenceTerm
from rheostat.options import option


@dataclass(frozen=True)
class DPO:
    """The paper's loss at TRL's step size."""

    data: PairSource = Pairs()
    """Pairs of a file that an annotator has written (file), pairs of the policy's own that a reward orders (sampled), or an expert's
    answers against wrong ones of the policy (taught)."""
    link: Link = option("sigmoid")
    """From the log-ratios of a pair to a loss; see :mod:`rheostat.objectives.preference`."""
    beta: float = option(0.1, above=0)
    """Scale of the log-ratios: the smaller, the further the policy may go from the starting model."""
    label_smoothing: float = option(0.0, at_least=0, below=0.5)
    """Share of labels taken as flipped (links sigmoid, robust, exo)."""
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1e-6)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "pairs_per_batch": 16}}

    def __post_init__(self) -> None:
        check_link(self.link, self.beta, self.label_smoothing)

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "without label_smoothing the link robust is sigmoid; set that too, or leave it alone"
        return {"link": why} if self.link == "robust" and not self.label_smoothing else {}

    def compose(self) -> Composition:
        """The four answers."""
        return from_pairs(self, PreferenceTerm(link=self.link, beta=self.beta, smoothing=self.label_smoothing))
