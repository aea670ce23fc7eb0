"""Reward model: a scalar head on a language model learns from pairs which answer people prefer; the checkpoint is a reward by name.

Papers: Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, equation 1; centring: Eisenstein et al. 2023, arXiv 2312.09244.

Equations (r the head after the last token of an answer)
    loss = mean over pairs of -log sigmoid(r_w - r_l - margin) + c (r_w + r_l)^2

WHO ACTS   no one: an annotator has written down both answers (``--preferences FILE``).
KEPT       every pair, whole.
WORTH      which of the two was preferred, and with ``margins`` by how much.
MOVES      the likelihood of the annotator's choices in the Bradley-Terry model; network and head are trained together.

What differs from dpo: what is trained is no policy. ``--reward run:DIRECTORY`` takes the run as a reward in any language method: the model
in its folder ``model`` reads the answer with its own tokenizer, so it may be of another family than the policy. Measured on held-out pairs:
accuracy (equal rewards are wrong), calibration, the correlation of reward and length, and accuracy where the chosen answer is the longer
and where it is the shorter one. A reward of single answers cannot see the order of a pair.

Details: the head is one linear layer that begins at 0, so all rewards do. Rows are padded on both sides and the head reads the last real
token, the end token where the answer has one.
Checked against: TRL 1.16.0, executed (``tests/vectors``: baselines-preference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.collect.language.pairs import Pairs
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation
from rheostat.learner.dial import Dial
from rheostat.learner.language_preferences import StartComparison, from_pairs
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.preference_terms import BradleyTerry
from rheostat.options import option


@dataclass(frozen=True)
class RewardModel:
    """A small step size for whole networks; TRL's 1e-4 is for adapters."""

    data: Pairs = Pairs()
    centring: float = option(0.0, at_least=0)
    """Weight c of the squared sum of both rewards, which keeps their mean near 0; 0.01 is usual."""
    margins: bool = option(False)
    """Ask every pair for its margin: how much better the chosen answer is (column margin, or the difference of both scores)."""
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1e-5)
    evaluation: Evaluation = Evaluation()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 1e-3, "pairs_per_batch": 16}}
    fixed: ClassVar[frozenset[str]] = frozenset({"sampling.temperature"})

    def __post_init__(self) -> None:
        if self.sampling.temperature != 1.0:
            raise RheostatError("A reward model samples nothing: leave the temperature alone.")

    def compose(self) -> Composition:
        """The four answers."""
        return from_pairs(self, BradleyTerry(centring=self.centring, margins=self.margins), start=StartComparison(False))
