"""PRIME: process reinforcement through implicit rewards, from a reward model that is trained on outcomes together with the policy.

Papers: Cui et al. 2025, arXiv 2502.01456; Yuan et al. 2024, arXiv 2412.01981 (rewards of tokens without labels).

Equations (G completions per prompt, R_i their rewards, o_i whether they are right, pi_phi the reward model, a language model too)
    r_it  = beta log pi_phi(y_it) / pi_ref(y_it)
    L(phi) = - mean_i [ o_i log sigmoid(sum_t r_it) + (1 - o_i) log(1 - sigmoid(sum_t r_it)) ]
    A_it  = R_i - mean_{j != i} R_j + alpha sum_{s >= t} gamma^{s-t} [ r_is - mean_{j != i} mean_s r_js ]
    loss  = mean_t -min(ratio A, clip(ratio, 1 - eps_low, 1 + eps_high) A)

WHO ACTS   the policy itself samples ``group_size`` completions for each of ``prompts_per_batch`` prompts; with ``dynamic`` again, until
           enough prompts are neither all right nor all wrong.
KEPT       the fresh batch.
WORTH      the outcome less that of the other completions, and the returns of the reward model's rewards less their mean in the others.
MOVES      first the reward model, by the likelihood of the outcomes of this batch; then the policy, by the clipped surrogate.

What differs from process-reward: the reward model is a whole language model and has no head. A token's reward is its log-ratio to the
starting model, so that of the first update is 0 everywhere and the policy moves as with rloo. Policy, reward model and starting model are
three copies of one network.

Choices where the paper leaves them open, and what the authors' code (verl's recipe) does otherwise: rewards are those of the reward model
before its update (one forward pass; the recipe's default reads them again after it); its log-probabilities are taken under the distribution
that is sampled, as all are here; ``dynamic`` keeps prompts that are neither all right nor all wrong, which for four completions is the
paper's range of .2 to .8; ``right_above`` turns other rewards into outcomes. The recipe standardises the sum over the batch's tokens
(``whiten``), divides process rewards by their deviation, and its baseline holds 1 / (G - 1) of a token's distance to the mean of its own
row; that distance adds up to 0 over a row. There is no KL.
Checked against: the equations, by an implementation of both updates of its own (``tests/plain/test_prime.py``). Neither the paper's results
nor its code have been run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Dynamic, Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, ModelScores, OldScores
from rheostat.credit.process_rewards import ImplicitRewards
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import dynamic, entropy_bonus, policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen
from rheostat.learner.reward_training import ImplicitRewardUpdate
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class PRIME:
    """The paper's step sizes, with batch sizes for one machine."""

    groups: Groups = Groups(size=4)
    dynamic: Dynamic | None = None
    """Keep only groups whose rewards differ, and sample until the batch is full."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("rloo")
    process: ImplicitRewards = ImplicitRewards()
    reward_model: ImplicitRewardUpdate = ImplicitRewardUpdate()
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(learning_rate=5e-7)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "reward_learning_rate": 1e-3}}

    def compose(self) -> Composition:
        """The four answers."""
        tokens = Tokens(self.aggregate)
        reward_model = replace(self.reward_model, micro_batch_rows=self.update.micro_batch_rows)
        process = replace(self.process, beta=reward_model.beta)
        surrogate = PolicyGradient(tokens, self.clip, correction=self.correction)
        return Composition(
            collect=dynamic(self.dynamic, self.groups),
            retain=[self.keep],
            credit=[OldScores(), ModelScores(), self.advantage, process],
            improve=[reward_model, self.update.of(Weighted(surrogate), entropy_bonus(self.entropy_coefficient, tokens))],
            models=policy_models(self.update) | {"reference": Frozen(), "reward": reward_model.trained()},
        )
