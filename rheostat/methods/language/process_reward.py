"""Process reward: a reward model is trained together with the policy, and its progress on every token is that token's reward.

Papers: Setlur et al. 2024, arXiv 2410.08146 (progress as process reward); Cobbe et al. 2021, arXiv 2110.14168 (a verifier with a value on
every token, learned from outcomes alone).

Equations (G completions per prompt, R_i their rewards, s_t the row before token t, V the reward model)
    L(V)  = mean_t 1/2 [ 1/2 (V(s_t) - R)^2 + 1/2 (V(s_t+1) - R)^2 ]
    r_t   = V(s_t+1) - V(s_t)
    A_it  = R_i - mean_g R + alpha r_it
    loss  = mean_t -min(ratio A, clip(ratio, 1 - eps_low, 1 + eps_high) A)

WHO ACTS   the policy itself samples ``group_size`` completions for each of ``prompts_per_batch`` prompts.
KEPT       the fresh batch.
WORTH      the outcome relative to the group, and the progress of the reward model on every token.
MOVES      first the reward model, towards the outcomes of this batch; then the policy, by the clipped surrogate.

What differs from grpo: two networks are trained, each with its own optimiser. The reward model begins as a copy of the policy whose scalar
head is 0, so that the first update is that of the outcome alone. Progress is in units of the reward, so the outcome's advantage is not
divided by the group's deviation. Values are those of the reward model before its update, which has not seen these outcomes: the logged
``reward_model/pair_accuracy`` is on held-out completions. There is no KL.

What differs from the papers: the progress is that of the policy which is trained, not of another prover, so for a perfect V it adds nothing
to the expected direction of the gradient and moves credit to the tokens that earned it; V is learned online, from the policy's own
completions, instead of from completions collected before; the advantage subtracts the group's mean. In a conversation a token's progress
leaves out what the environment said: V is read again after it.
Checked against: the equations, by an implementation of both updates of its own (``tests/methods/test_process_reward.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, OldScores
from rheostat.credit.process_rewards import ProcessRewards
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import entropy_bonus, policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.reward_training import RewardModelUpdate
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class ProcessReward:
    """Outcome and process in one advantage."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("mean-baseline")
    process: ProcessRewards = ProcessRewards()
    reward_model: RewardModelUpdate = RewardModelUpdate()
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "reward_learning_rate": 1e-3}}

    def compose(self) -> Composition:
        """The four answers."""
        tokens = Tokens(self.aggregate)
        reward_model = replace(self.reward_model, micro_batch_rows=self.update.micro_batch_rows)
        surrogate = PolicyGradient(tokens, self.clip, correction=self.correction)
        return Composition(
            collect=self.groups,
            retain=[self.keep],
            credit=[OldScores(), self.advantage, self.process],
            improve=[reward_model, self.update.of(Weighted(surrogate), entropy_bonus(self.entropy_coefficient, tokens))],
            models=policy_models(self.update) | {"reward": reward_model.trained()},
        )
