"""Online DPO: the policy answers every prompt twice, a reward says which answer is better, and DPO learns from that pair at once.

Paper: Guo et al. 2024, "Direct Language Model Alignment from Online AI Feedback", arXiv 2402.04792.

Equations (y_1 and y_2 drawn by the present policy, r the reward)
    y_w  = y_1 where r(y_1) > r(y_2), else y_2;      w and l the log-ratios of both to the reference
    loss = -mean over pairs of log sigmoid(beta (w - l))

WHO ACTS   the present policy, ``group_size`` answers per prompt; with ``dial.refresh_every`` a copy of it that is taken anew every few
           updates (semi-online), or that of the start (0: offline).
KEPT       the pairs of the present batch, whole; pairs of equal rewards are left out.
WORTH      the order of two rewards, of a verifier or a reward model (``--reward run:DIRECTORY``), or with ``compare_by judge`` what a judge
           of pairs says in both orders (``--judge``).
MOVES      one gradient step of DPO per batch, without a ratio to the sampler and without a clip.

What differs from dpo: the data, and nothing else: ``dpo --data sampled`` is the same method. Of more than two answers the best and the
worst are the pair, which the paper does not do.

What the released code does differently: TRL takes the first of two equal answers as the better one (``ties first``), which pushes noise;
its penalty for a missing end token is ``missing_end_penalty``.
Checked against: lines of TRL 1.16.0, transcribed (``tests/vectors``: baselines-preference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.collect.language.sampled_pairs import SampledPairs
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language_preferences import from_pairs
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.preference_terms import PreferenceTerm
from rheostat.options import option


@dataclass(frozen=True)
class OnlineDPO:
    """TRL's settings."""

    data: SampledPairs = SampledPairs()
    link: Literal["sigmoid", "ipo", "ipo-scaled", "hinge"] = option("sigmoid")
    """From the log-ratios of a pair to a loss; see :mod:`rheostat.objectives.preference`."""
    beta: float = option(0.1, above=0)
    """Scale of the log-ratios: the smaller, the further the policy may go from the reference."""
    sampling: SamplingOptions = SamplingOptions(temperature=0.9)
    update: Update = Update(learning_rate=5e-7)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "temperature": 1.0}}

    def compose(self) -> Composition:
        """The four answers."""
        return from_pairs(self, PreferenceTerm(link=self.link, beta=self.beta))
