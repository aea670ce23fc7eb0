"""SELF: only what the policy cannot solve is trained on, and what it could say at the start is rehearsed.

Paper: Nguyen et al. 2025, "The Reasoning Boundary Paradox: How Reinforcement Learning Constrains Language Models", arXiv 2510.02230.

Equations (G completions per prompt that passes, R_i their rewards; y' samples of the starting model)
    pass     a prompt passes when its greedy answer is wrong: R(greedy) != 1
    A_i      = (R_i - mean_g R) / (std_g R + eps)
    L        = max(-r A, -clip(r, 1 - eps_low, 1 + eps_high) A), at most -3 A where A < 0          r = pi / pi_old
    loss     = mean of L over tokens + beta mean over tokens of y' of [ log pi_start - log pi ]

WHO ACTS   the policy, twice: greedily on each of ``prompts_per_batch`` prompts, then ``group_size`` samples of those it got wrong.
KEPT       the samples; the greedy answers are thrown away. A prompt is asked again whenever it comes, and returns if it was forgotten.
WORTH      a verifier's reward, relative to the group.
MOVES      the clipped surrogate with a dual clip; a forward KL to the starting model, where it is asked for.

What differs from grpo: the gate, the mean over tokens, the dual clip, no KL inside the loss. A batch is as large as the prompts that pass
make it; one of which none passes is drawn again, up to ``max_gate_rounds`` times, and then the run stops and says so.

What the released code does differently: it fills what passed up to a multiple of the number of workers with copies, which count twice;
where nothing passes its loop goes on without counting the step, for ever if need be.
Reconstruction: the forward KL is of the paper, not of the scripts, and the paper's Eq. 9 seems to select *solved* prompts where its text
says otherwise. So ``rehearsal_coefficient`` is 0, and ``rehearse`` chooses the prompts; that one sample per prompt estimates it is ours.
Checked against: the authors' code (``tests/vectors``: self-curation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.gates import Unsolved
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.collect.language.rehearsal import Rehearsal, Rehearsed
from rheostat.credit.annotations import GroupAdvantage, OldScores
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, group_policy_gradient, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import PolicyGradient, SamplerKL
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted
from rheostat.trajectories import Source


@dataclass(frozen=True)
class SelfCuration:
    """The scripts' setting, with batch sizes for one machine."""

    groups: Groups = Groups(32, 8)
    gate: Unsolved = Unsolved()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: Clip = Clip(0.2, 0.2, dual=3.0)
    clamp_log_ratio: bool = option(True)
    """Clamp token log-ratios to +-20 before exponentiating, as verl does."""
    rehearsal_coefficient: float = option(0.0, at_least=0)
    """Weight beta of the forward KL to the starting model; 0 samples nothing from it (as released)."""
    rehearse: Rehearsed = option("unsolved")
    """Prompts whose answers are rehearsed: those that pass the gate, those it holds back, or all."""
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(minibatches=2)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}, "rehearsed": {"rehearsal_coefficient": 0.1}}

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.rehearsal_coefficient else {"rehearse": "rehearsal_coefficient is 0, so nothing is rehearsed; leave it alone"}

    def compose(self) -> Composition:
        """The four answers."""
        collect, everything = self.gate.over(self.groups), Tokens(self.aggregate)
        if not self.rehearsal_coefficient:
            return group_policy_gradient(self, self.surrogate(everything), collect=collect)
        own, rehearsed = replace(everything, without=Source.EXPERT), replace(everything, only=Source.EXPERT)
        update = self.update.of(
            self.surrogate(own),
            *regularisers(self, own),
            Weighted(SamplerKL(rehearsed), self.rehearsal_coefficient, "rehearsal"),
        )
        return Composition(
            collect=collect,
            retain=[self.keep, Rehearsal(self.rehearse)],
            credit=[OldScores(), *self.kl.annotations, replace(self.advantage, without=Source.EXPERT)],
            improve=[update],
            models=policy_models(self.update, self.kl) | {"reference": Frozen()},
        )

    def surrogate(self, tokens: Tokens) -> Weighted:
        """The clipped surrogate of some tokens."""
        return Weighted(PolicyGradient(tokens, self.clip, clamp_log_ratio=self.clamp_log_ratio))
