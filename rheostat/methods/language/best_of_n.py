"""Best-of-N distillation: the policy imitates the best of N answers of its own to every prompt.

Papers: Stiennon et al. 2020, arXiv 2009.01325 (best-of-N sampling); Beirami et al. 2024, arXiv 2401.01879 (its KL to the base policy).

Equations (r_k the rewards of N answers to a prompt, S the sum of an answer's log-probabilities)
    k*   = argmax_k r_k, the first one where several are
    loss = -mean over prompts of S(y_k*)
    KL(best of N, base) <= log N - (N - 1) / N

WHO ACTS   the policy, ``group_size`` answers (N) for each of ``prompts_per_batch`` prompts; with ``dial.refresh_every`` a copy of it.
KEPT       the best answer of every prompt.
WORTH      the order of rewards within a prompt, and of it the first place alone.
MOVES      maximum likelihood of the best answers.

What differs from rft: the best answer is learned however bad it is, and one per prompt. A prompt whose answers are all equal teaches its
first one, as published; ``dynamic on`` leaves such prompts out.
Checked against: equations by numpy (``tests/vectors``: baselines-preference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import BestOfGroup, Valid
from rheostat.collect.language.language_collectors import Dynamic, Groups, SamplingOptions
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import dynamic, policy_models
from rheostat.learner.language_preferences import StartComparison, measure
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.terms import Likelihood
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class BestOfN:
    """The best of 16."""

    groups: Groups = Groups()
    dynamic: Dynamic | None = None
    """Keep only groups whose rewards differ, and sample until the batch is full."""
    aggregate: Aggregate = Aggregate("sequence-sum")
    start: StartComparison = StartComparison()
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}

    def compose(self) -> Composition:
        """The four answers."""
        return Composition(
            collect=dynamic(self.dynamic, self.groups),
            retain=[Valid(), BestOfGroup()],
            credit=[],
            improve=[self.update.of(Weighted(Likelihood(Tokens(self.aggregate))))],
            models=policy_models(self.update) | self.start.models,
            measure=measure,
        )
