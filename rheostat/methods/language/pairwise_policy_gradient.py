"""Pairwise policy gradient: the difference of two rewards moves the difference of two log-probabilities.

Paper: Wu et al. 2023, "Pairwise Proximal Policy Optimization", arXiv 2310.00212.

Equations (two answers drawn for a prompt, S the sum of an answer's log-probabilities, k its log-ratio to the reference)
    g    = r_1 - r_2 - beta (k_1 - k_2)
    none      loss = -mean over pairs of g / 2 (S_1 - S_2)
    separate  loss = -mean of 1/2 [ min(R_1 g, clip(R_1) g) + min(-R_2 g, -clip(R_2) g) ],   R = pi / pi_old of an answer
    joint     loss = -mean of 1/2 min(R g, clip(R) g),   R = R_1 / R_2

WHO ACTS   the policy answers each of ``prompts_per_batch`` prompts twice; with ``dial.refresh_every`` a copy of it.
KEPT       the pairs of the present batch, whole.
WORTH      the difference of two rewards, so that what a prompt adds to both is nothing: all rewards that a Bradley-Terry model cannot tell
           apart give the same step.
MOVES      the policy gradient of whole answers, with the other answer's reward as the baseline.

What differs from rloo: at the start of an update nothing, for groups of two; ratios are of whole answers, and ``joint`` clips both at once.
Against online-dpo, the size of the reward's difference counts, and the gradient does not vanish with the margin.

What is reconstruction: the pairwise gradient is the paper's. Its clipped forms, ``separate`` and ``joint``, are written here as PPO's
pessimistic minimum on the ratio of one answer and of both; the paper's exact expressions, its defaults and the place of its KL were not
available, and the KL is a part of the reward here.
Checked against: equations by loops (``tests/plain``), and rloo's gradient for two answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.collect.language.sampled_pairs import SampledPairs
from rheostat.credit.annotations import ModelScores, OldScores
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import RewardKL, policy_models
from rheostat.learner.language_preferences import StartComparison, measure
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.preference_terms import PairwiseGradient
from rheostat.options import option
from rheostat.parts import Weighted


@dataclass(frozen=True)
class PairwisePolicyGradient:
    """Clips of PPO."""

    data: SampledPairs = SampledPairs(ties="first")
    clip: Literal["separate", "joint", "none"] = option("separate")
    """What is clipped: the ratio of each answer, that of both answers together, or nothing (for one gradient step)."""
    epsilon: float = option(0.2, short="clip_epsilon", above=0, below=1)
    """How far a ratio may move from 1."""
    kl: RewardKL = RewardKL(0.0)
    start: StartComparison = StartComparison()
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}
    fixed: ClassVar[frozenset[str]] = frozenset({"data.answers", "data.ties"})

    def __post_init__(self) -> None:
        if self.data.answers != 2 or self.data.ties != "first":
            raise RheostatError("A pairwise policy gradient is of two independent answers, equal or not: leave group_size and ties alone.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"epsilon": "nothing is clipped, so choose a clip too, or leave it alone"} if self.clip == "none" else {}

    def compose(self) -> Composition:
        """The four answers."""
        if self.clip == "none" and self.update.gradient_steps > 1:
            raise RheostatError("Several gradient steps on a batch need a clip: choose separate or joint, or epochs 1 and minibatches 1.")
        term = PairwiseGradient(clip=self.clip, epsilon=self.epsilon, kl_coefficient=self.kl.coefficient)
        reference = policy_models(self.update, self.kl)
        return Composition(
            collect=self.data,
            retain=[],
            credit=[OldScores(), *([ModelScores()] if self.kl.coefficient else [])],
            improve=[self.update.of(Weighted(term))],
            models=reference if "reference" in reference else reference | self.start.models,
            measure=measure,
        )
