"""POLAR: a reward model that first learns to tell policies apart, then from few rankings; it scores an answer beside a reference answer.

Paper: Dou et al. 2025, "Pre-Trained Policy Discriminators are General Reward Models", arXiv 2507.05197.

Equations (r(x, y_ref, y) the head after the last token of: prompt, reference, separator, prompt, candidate, end)
    zoo      A_1, A_2 two samples of one policy, B_1 one of another:      loss = mean of -log sigmoid( r(x, A_1, A_2) - r(x, A_1, B_1) )
    ranked   A > B > C answers ordered by people:                         loss = mean of -log sigmoid( r(x, A, B) - r(x, A, C) )
    use      R(x, y) = r(x, y_ref, y) with the demonstration of the prompt's row as y_ref

WHO ACTS   no one in training: a zoo of policies has answered (``data zoo``, no labels), or people have ranked (``data ranked``).
KEPT       every pair of candidates with its reference, whole; of several triples of a prompt in a zoo one at random every time it is drawn.
WORTH      who wrote the answers; after that, which of two candidates people put first.
MOVES      the likelihood of the right one in the Bradley-Terry model; network and head are trained together.

What differs from reward-model: it is given an answer that is as it should be, and says how alike another one is. No scale of quality is
learned: a score means something beside other scores with the same prompt and reference, so a method that uses it must compare answers of
one prompt (a group, or a critic). A run whose rewards are ``run:DIRECTORY`` of this one needs the column ``reference`` in its prompts.
A second stage begins with the model of the first one: ``--model DIRECTORY/model``.

What the released code does otherwise: it adds the separator ``<|reward|>`` and reads the score at an unused token of InternLM; here both
are tokens that the tokenizer has, by default its beginning and its end token (``separator``), so that no embedding begins untrained. Its
pre-training joins prompt and answer by nothing and its fine-tuning by a line break; here a model keeps the join that it began with
(``join``). It joins texts and tokenises the whole; here token ids are joined. Its check for an empty reference is never true; here a prompt
without a reference is refused. ``focal`` and ``penalty`` are options of its trainer that the paper leaves off. The paper's formulas of the
best step size and batch do not give the values that it used and are not implemented. Its AdamW forgets squares with 0.95, here with 0.999
as in every method. Reconstructed: answers longer than ``max_new_tokens``
are refused in a file, and cut to their first tokens where they are scored; ranked lists of more than three give all pairs of the others.

Checked against: functions of the release, executed (``tests/vectors``: polar).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.collect.language.policy_triples import RankedTriples, Triples, ZooTriples
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation
from rheostat.learner.dial import Dial
from rheostat.learner.language_preferences import StartComparison, from_pairs, held_out_of, measure_pairs
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.policy_discriminator import Penalty, SamePolicy
from rheostat.options import option
from rheostat.parts import Metrics


@dataclass(frozen=True)
class POLAR:
    """The paper's loss and optimiser, at the step size of its smaller model."""

    data: ZooTriples | RankedTriples = ZooTriples()
    """Answers with the names of the policies that wrote them (zoo), or with a ranking (ranked)."""
    focal: bool = option(False)
    """Weigh down pairs that are told apart already."""
    penalty: Penalty = option("none")
    """A cost of the size of scores, which the loss of pairs leaves open: none, log-barrier (within -5 and 5) or l2."""
    penalty_weight: float = option(0.01, above=0)
    """Weight of the penalty."""
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1.4e-5)
    evaluation: Evaluation = Evaluation()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 1e-3, "pairs_per_batch": 32}}
    fixed: ClassVar[frozenset[str]] = frozenset({"sampling.temperature"})

    def __post_init__(self) -> None:
        if self.sampling.temperature != 1.0:
            raise RheostatError("A reward model samples nothing: leave the temperature alone.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"penalty_weight": "penalty is none; choose one, or leave its weight alone"} if self.penalty == "none" else {}

    def compose(self) -> Composition:
        """The four answers."""
        term = SamePolicy(focal=self.focal, penalty=self.penalty, penalty_weight=self.penalty_weight)
        return replace(
            from_pairs(self, term, start=StartComparison(False)),
            measure=partial(measure_triples, term=term, data=self.data),
        )


def measure_triples(context: Any, count: int, term: SamePolicy, data: Triples) -> Metrics:
    """How held-out candidates are ordered beside their references: strictly, by how much, how sure, and how scores go with length."""
    return measure_pairs(context, held_out_of(context.setup.task, count), term, data.held_out)
