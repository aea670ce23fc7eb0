"""OPRL (later called iStar): step rewards for agents from a language model that learns from preferences between whole episodes.

Paper: Liu et al. 2025, arXiv 2509.19199 (its first versions are named OPRL).

Equations (G episodes per task, o_i their outcomes, steps t = 1, ..., T_i of several tokens each, pi_phi the process reward model)
    r_t   = beta sum over tokens of step t of [ log pi_phi - log pi_old ]
    L(phi) = - mean over pairs of log sigmoid( sum_t r_t(success) - sum_t r_t(failure) )
    A_E   = (o_i - mean over the group) / std,        A_S = (r_t - mean over all steps of the group) / std over the same
    A_t   = A_E + alpha A_S
    loss  = - mean over steps of min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t),   rho_t = prod over tokens of pi / pi_old

WHO ACTS   the policy itself samples ``group_size`` conversations for each of ``prompts_per_batch`` tasks.
KEPT       the fresh batch.
WORTH      an episode's outcome among those of its group, and every step's implicit reward among those of the group's steps.
MOVES      first the reward model, by preferences between the group's successes and failures; then the policy, by the clipped surrogate
           with one ratio per step.

What the theory says and what it does not: if pairs are drawn as Bradley and Terry have it, the best pi_phi has
beta sum_t (log pi_phi - log pi_old) = R(tau) - c, with c the same for all episodes of a task. Step rewards are then the true ones, shaped
by a potential, so that they prefer the same policies. Only the sum over an episode is identified by the pairs; how it falls on the steps is
up to the model (``tests/methods/test_oprl.py`` has both statements on tabular problems).

What differs from prime: the reward model is compared with the policy of this iteration and not with the starting model, it learns from
pairs and not from single outcomes, and a whole turn has one reward. Both are a second language model without a head. In the first update it
is the policy, so all step rewards are 0.

Step rewards are standardised, so they count as much while the reward model knows nothing. For pi = pi_old their gradient is that of
-beta KL(pi || pi_phi): a reward model that learns more slowly than the policy holds the policy back.

Choices where the paper leaves them open: deviations divide by n (``unbiased_deviation``) and get 1e-6; step rewards are those of the
reward model before its update; a group whose outcomes are all equal still learns from its steps (the paper's equation), with a reward
model that no pair of it has moved. A single completion counts as one step.
What the authors' code does otherwise (preset ``released``): the score of an episode is the mean over its steps; values are compared with
the first step of each episode, by leave-one-out; step rewards are divided by the largest of the batch; ratios are those of single tokens
with a dual clip, averaged over tokens. It takes the logarithm of a sigmoid, which is infinite for large negative margins; forms pairs
within a worker only; duplicates rows at random until batches divide; outcomes are 0 and 10 there, so that alpha = 1 weighs steps a tenth.
Here the loss is exact, pairs are of the whole batch, no row counts twice, and outcomes are the task's own.
Checked against: the authors' functions and the paper's equations (``tests/vectors``: oprl), and both updates by loops
(``tests/plain``). The paper's results are on WebShop, Sokoban with pictures, and SOTOPIA, with models that are ten thousand
times larger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Dynamic, Groups, SamplingOptions
from rheostat.credit.annotations import OldScores
from rheostat.credit.step_rewards import StepAdvantage
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import dynamic, entropy_bonus, policy_models
from rheostat.learner.learner import Composition
from rheostat.learner.reward_training import TrajectoryPreferenceUpdate
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.step_ratio import StepPolicyGradient
from rheostat.objectives.terms import PolicyGradient, SamplerCorrection, TokenTerm
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class OPRL:
    """The paper's equations and step sizes, with batch sizes for one machine."""

    groups: Groups = Groups(size=8)
    dynamic: Dynamic | None = None
    """Keep only groups whose rewards differ, and sample until the batch is full."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: StepAdvantage = StepAdvantage()
    """What steps are worth."""
    reward_model: TrajectoryPreferenceUpdate = TrajectoryPreferenceUpdate()
    clip: Clip = Clip(0.2, 0.2)
    """How far the ratio may move."""
    ratio: Literal["step", "token"] = option("step")
    """One ratio for all tokens of a turn (the paper), or one for each token (the authors' code)."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    entropy_coefficient: float = option(0.001)
    """Weight of an entropy bonus."""
    update: Update = Update(learning_rate=5e-7)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 2e-4, "reward_learning_rate": 4e-4},
        "released": {
            "advantage": "rloo", "step_statistics": "first", "step_scale": "largest", "trajectory_score": "mean", "ratio": "token",
            "dual_clip": 3.0,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.ratio == "step" and self.advantage.granularity == "token":
            raise RheostatError(
                "step_granularity 'token' gives the tokens of a turn different advantages, which one ratio cannot have: set ratio token."
            )
        if self.ratio == "step" and self.correction.on:
            raise RheostatError(
                "The corrections for the sampler weigh single tokens, which have no ratio of their own here: set ratio token."
            )

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found = {}
        if self.ratio == "step":
            found["aggregate.mode"] = "one ratio per step is averaged over steps; aggregation is for ratio token, so leave it alone"
        if not self.learns_rewards:
            why = "no reward model gives step rewards here, so leave it alone"
            found |= {f"reward_model.{name}": why for name in ("learning_rate", "passes", "weight_decay", "max_grad_norm", "beta", "score")}
            found["reward_model.threshold"] = why
        return found

    @property
    def learns_rewards(self) -> bool:
        """Whether a reward model is trained: not with an oracle, and not for step rewards that weigh nothing."""
        return self.advantage.learned

    def surrogate(self) -> TokenTerm:
        """What the policy descends."""
        if self.ratio == "step":
            return StepPolicyGradient(clip=self.clip)
        return PolicyGradient(Tokens(self.aggregate), self.clip, correction=self.correction)

    def compose(self) -> Composition:
        """The four answers."""
        reward_model = replace(self.reward_model, micro_batch_rows=self.update.micro_batch_rows)
        advantage = replace(self.advantage, beta=reward_model.beta)
        tokens = Tokens(self.aggregate) if self.ratio == "token" else Tokens()
        policy = self.update.of(Weighted(self.surrogate()), entropy_bonus(self.entropy_coefficient, tokens))
        models = {"reward": reward_model.trained()} if self.learns_rewards else {}
        return Composition(
            collect=dynamic(self.dynamic, self.groups),
            retain=[self.keep],
            credit=[OldScores(), advantage],
            improve=[reward_model, policy] if self.learns_rewards else [policy],
            models=policy_models(self.update) | models,
        )
