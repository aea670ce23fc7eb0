"""RWR: reward-weighted regression, likelihood of answers weighted by what they earned.

Papers: Peters and Schaal 2007, "Reinforcement learning by reward-weighted regression for operational space control"; on language models
Tajwar et al. 2024, arXiv 2404.14367.

Equations (r the reward of an answer, S the sum of its log-probabilities)
    exponential  loss = -sum over tokens of min(exp(r / tau), w_max) log pi / number of tokens
    softmax      loss = -mean over prompts of sum_k softmax_k(r / tau) S(y_k)

WHO ACTS   the policy, ``group_size`` answers for each of ``prompts_per_batch`` prompts; with ``dial.refresh_every`` a copy of it. With
           ``data file`` no one: answers and their scores are those of ``--preferences FILE``.
KEPT       the answers of a batch.
WORTH      an exponential of the reward, cut at a cap, or self-normalised among the answers of a prompt. Weights are constants.
MOVES      maximum likelihood with these weights: no negative gradient.

What differs from rft: every answer counts, by its reward. What differs from best-of-n: not the best alone (tau towards 0). The exponential
form has no baseline, and its denominator counts tokens and no weights, so the scale of rewards sets the step.
Checked against: equations by numpy (``tests/vectors``: baselines-preference). Two conventions are in use; both are here by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.judged_answers import OwnAnswers, ScoredAnswers
from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.credit.annotations import RewardWeights
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import policy_models
from rheostat.learner.language_preferences import StartComparison, measure
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.unpaired_terms import RewardWeighted
from rheostat.parts import Weighted


@dataclass(frozen=True)
class RWR:
    """A temperature of 1."""

    data: OwnAnswers | ScoredAnswers = OwnAnswers()
    """Completions of the policy's own that a reward scores (sampled), or scored answers of a file."""
    weights: RewardWeights = RewardWeights()
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
        if isinstance(self.data, ScoredAnswers) and self.weights.form == "softmax":
            raise RheostatError("Softmax weights need all answers of a prompt in one batch, and a file gives single ones: use exponential.")
        return Composition(
            collect=self.data,
            retain=[Valid()],
            credit=[self.weights],
            improve=[self.update.of(Weighted(RewardWeighted(per_prompt=self.weights.form == "softmax")))],
            models=policy_models(self.update) | self.start.models,
            measure=measure,
        )
