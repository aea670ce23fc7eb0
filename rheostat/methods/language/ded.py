"""DED: a small corpus that is chosen well, then plain fine-tuning.

Paper: Wu et al. 2025, "Beyond Scaling Law: A Data-Efficient Distillation Framework for Reasoning", arXiv 2508.09883.

Equations (questions x, a teacher's answers y to each)
    good     |y| <= L_max, the form is kept, and the answer is right
    hard     the student solves x in at most tau of its own answers before it learns
    diverse  of the good answers to a hard question, P that lie far apart by edit distance d:
             max-min   the pair of the largest d first, then again and again argmax_y min_{s chosen} d(y, s)
             max-sum   the set S of P answers with the largest sum of d over its pairs
    loss = -1/(sum_i |y_i|) sum_i sum_t log pi(y_it | x_i, y_i<t)

WHO ACTS   a teacher, once and before training: a file of expert rows with several answers to a question, or the task's own expert.
KEPT       what is good, hard and diverse, in this order: a wrong or looping answer is far from every other one.
WORTH      nothing but the filter: every token that is kept has weight 1.
MOVES      maximum likelihood, as in sft.

What differs from sft: the corpus is chosen when the run begins, with the student as it is then, and stays the same. Which teacher to learn
from is decided by a trial before: a recipe trains the same student on a small corpus of each, and goes on with the answers of the teacher
whose student is best (``experts_of_best``, see the page on distillation), not of the one with the best benchmark.

No code was released. Reconstruction: the values of tau (``most_solved``), P (``per_question``) and M (``answers_per_question``); "the
farthest" as the two rules above, in tokens; the form is not checked unless ``answer_form think`` asks for the paper's single block. Rows of
a file that are too long are errors unless ``expert_long drop`` leaves them out. Batches and rate are for one machine; the paper has batches
of 48 at 1e-5 over ten epochs.
Checked against: the equations (``tests/vectors``: ded).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.collect.language.chosen_rows import ChosenRows, RowChoice, Teacher
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
class DED:
    """The paper's corpus, with four answers to a question."""

    demonstrations: Demonstrations = Demonstrations(48)
    rows: RowChoice = RowChoice()
    teacher: Teacher = Teacher()
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
            collect=ChosenRows(self.demonstrations, self.rows, self.teacher),
            retain=[],
            credit=[OldScores()],
            improve=[self.update.of(Weighted(Likelihood(Tokens(self.aggregate))))],
            models=policy_models(self.update),
        )
