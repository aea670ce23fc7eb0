"""Cog-Rethinker: problems on which the whole group fails are asked again, in smaller problems and then with their wrong answers in view.

Paper: "Cog-Rethinker: Hierarchical Metacognitive Reinforcement Learning for LLM Reasoning", arXiv 2510.15979 (2025).

Equations (c_s = right answers of G to a problem in stage s, T_s = its prompt there, R in {0, 1}, r = pi / pi_old under T_s)
    stage s + 1 is run         where c_s = 0
    A      = (R - mean_g R) / (std_g + 1e-6)                         of a group (problem, stage) with 0 < c_s < G
    L_DAPO = 1/N  sum over their tokens of max(-A r, -A clip(r, 0.8, 1.28))                       all conditioned on T_s
    L_SFT  = -1/N' sum over tokens of right answers of stages 1 and 2 of log pi(y_t | T_0, y_<t)   conditioned on T_0
    L      = L_DAPO + lambda L_SFT

WHO ACTS   the policy, in up to three stages: the plain prompt T_0; T_1 asks to split the problem, behind worked traces; T_2 shows wrong
           answers of the first two stages, behind worked traces. A hard problem costs three groups.
KEPT       groups that are partly right; right answers of the later stages, re-wrapped under T_0; and two buffers of worked traces, one
           for each later stage, of which a prompt shows those whose problems share most with its own (BM25), never its own problem's.
WORTH      a verifier's 0 or 1, relative to the group of one problem in one stage: groups of different prompts are never mixed.
MOVES      DAPO's clip-higher and token mean, no KL, no entropy bonus; plus imitation, with no ratio and a denominator of its own. Both
           stand in every gradient step: rows to imitate are spread evenly over its minibatches.

What differs from grpo: all of this. What differs from dapo: groups that teach nothing are asked again in another way and not replaced, so
that a batch never costs more than three groups per problem; no overlong penalty. Measurements are of plain prompts; ``stages/...`` in the
log says what every stage was asked, solved and cost in tokens, and ``generated_tokens`` counts all of them. ``last_stage 0`` is DAPO
without refilling; ``sft_weight 0`` leaves out what moves the ability to the plain prompt.

There is no official code. From the paper's abstract and its public reviews: the stages, the routing by zero accuracy, the buffers with
BM25, the plain prompt for imitated answers, the joint loss. Reconstruction: lambda, G, whether the later stages' groups enter L_DAPO
(``rl_stages``), the variant and constants of BM25, what the buffers begin with (solutions of the task's expert or of a file), how large
they are and that the oldest trace goes, how many traces and wrong answers are shown, that both losses share minibatches, and the wording
of the prompts. ``dangling drop`` leaves out right answers that speak of attempts which the plain prompt does not show. A group with an
answer that could not be graded is not known to fail. Prompts are never cut: traces that do not fit are left out, and a problem whose prompt
does not fit without any is not asked again (``stages/too_long``).
Checked against: an independent statement of routing, loss and BM25 (``tests/vectors``: cog-rethinker).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.collect.language.rethinking import Rethinking
from rheostat.credit.annotations import GroupAdvantage, OldScores
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.spread_updates import SpreadUpdate
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, Likelihood, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted
from rheostat.trajectories import Source


@dataclass(frozen=True)
class CogRethinker:
    """The specification's setting, with batch sizes for one machine."""

    groups: Groups = Groups(48, 8)
    stages: Rethinking = Rethinking()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: AnyClip = Clip(0.2, 0.28)
    """How far the ratio of sampled tokens may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    sft_weight: float = option(0.1, at_least=0)
    """Weight lambda of the imitation of right answers of the later stages; 0 leaves it out."""
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: SpreadUpdate = SpreadUpdate()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    fixed: ClassVar[frozenset[str]] = frozenset({"sampling.temperature", "sampling.top_k", "sampling.top_p"})
    """Refused with any other value, as ``__post_init__`` says why."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 2e-4, "prompts_per_batch": 24, "shots": 1, "demonstrations": 8, "shown_attempts": 2}
    }

    def __post_init__(self) -> None:
        if self.sampling.temperature != 1 or not self.sampling.whole:
            raise RheostatError(
                "Answers that were sampled after one prompt are imitated after another, under the model's own distribution: leave "
                "temperature at 1, and top_k and top_p off."
            )
        later = [stage for stage in self.stages.learned if 0 < stage <= self.stages.last]
        if self.stages.last and not self.sft_weight and not later:
            raise RheostatError(
                "Nothing would be learned from the later stages: raise sft_weight, name one of them in rl_stages, or set last_stage 0."
            )

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.stages.last else {"sft_weight": "last_stage is 0, so there is nothing to imitate; raise it, or leave this alone"}

    def compose(self) -> Composition:
        """The four answers."""
        own, imitated = Tokens(self.aggregate, without=Source.EXPERT), Tokens(Aggregate("token-mean"), only=Source.EXPERT)
        imitates = bool(self.stages.last and self.sft_weight)
        imitation = Weighted(Likelihood(imitated), self.sft_weight, "sft") if imitates else None
        surrogate = PolicyGradient(own, self.clip, correction=self.correction)
        return Composition(
            collect=replace(self.stages, inner=self.groups, imitates=imitates),
            retain=[self.keep],
            credit=[OldScores(), *self.kl.annotations, replace(self.advantage, without=Source.EXPERT)],
            improve=[self.update.of(Weighted(surrogate), *regularisers(self, own), imitation)],
            models=policy_models(self.update, self.kl),
        )
