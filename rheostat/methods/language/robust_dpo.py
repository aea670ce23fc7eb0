"""Robust DPO: DPO without bias where a known share of labels is flipped.

Paper: Chowdhury et al. 2024, arXiv 2403.00409.

Equations (w and l the log-ratios of the chosen and the rejected answer to the reference, e the share of flipped labels)
    loss = mean over pairs of [-(1 - e) log sigmoid(beta (w - l)) + e log sigmoid(-beta (w - l))] / (1 - 2 e)

WHO ACTS   no one: an annotator has written down both answers (``--preferences FILE``). With ``data sampled`` the policy itself, or with
           ``dial.refresh_every`` a copy of it.
KEPT       every pair, whole.
WORTH      which of the two was preferred.
MOVES      a loss whose mean over flipped labels is DPO's on true ones; it may be negative, and its margin has no limit.

What differs from dpo: the link. What differs from cdpo: the optimum is that of clean labels instead of a smaller one.
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
from rheostat.objectives.preference_terms import PreferenceTerm
from rheostat.options import option


@dataclass(frozen=True)
class RobustDPO:
    """A tenth of the labels is taken as flipped; TRL's step size."""

    data: PairSource = Pairs()
    """Pairs of a file that an annotator has written (file), or pairs of the policy's own that a reward orders (sampled)."""
    beta: float = option(0.1, above=0)
    """Scale of the log-ratios: the smaller, the further the policy may go from the reference."""
    label_smoothing: float = option(0.1, above=0, below=0.5)
    """Share of labels taken as flipped."""
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1e-6)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "pairs_per_batch": 16}}

    def compose(self) -> Composition:
        """The four answers."""
        return from_pairs(self, PreferenceTerm(link="robust", beta=self.beta, smoothing=self.label_smoothing))
