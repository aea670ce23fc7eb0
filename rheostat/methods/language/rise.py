"""RISE: in every update the policy also judges solutions that it has just written.

Paper: Liu et al. 2025, "Trust, But Verify: A Self-Verification Approach to Reinforcement Learning with Verifiable Rewards",
arXiv 2505.13445; code: xyliu-cs/RISE.

Equations (PPO with a critic on tokens, over solutions and judgements together)
    solution    earns s = 1 (right), -0.5 (wrong) or -1 (no answer)
    judgement   of a solution that earned s: 1 where it states s, -0.5 where it states another score, -1 where it states none
    r_t         = -beta (log pi_old - log pi_ref)_t + what the row earns, at its last token
    A, Ret      = GAE(1, 1) over a row's tokens; A whitened over all tokens of the mixed batch
    loss        = token mean of max(-r A, -clip(r, 0.8, 1.2) A) - 0.001 entropy + 1/2 max((V - Ret)^2, (clip(V, V_old +- 0.5) - Ret)^2)

WHO ACTS   the policy: ``group_size`` solutions of each of ``prompts_per_batch`` prompts, then ``group_size`` judgements of each of
           ``verification_prompts`` of these solutions, spread over the groups, drawn uniformly within them.
KEPT       all of it, for one pass of ``minibatches`` steps. Nothing crosses updates.
WORTH      for solutions the verifier, for judgements what the solution has earned: exact, and no further labels.
MOVES      PPO's clipped surrogate and a critic; one whitening couples both kinds of rows, so their share is a part of the method.

What differs from ppo-lm: the judgements, three-valued rewards (``solution_rewards task``: the task's own, and 1 or 0), groups of eight.
Here the critic is a head on the policy, as in ppo-lm; the released code trains a second model (learning rates 5e-7 and 9e-6).

What the released code does differently: a question that is too long is cut at its end, which can take the question away (here it is not
asked, and counted); it takes the first groups of a shuffled batch where there are fewer questions than groups (here, too, unshuffled); its
critiques' group numbers can collide with other problems' (here they are their own, below 0).
Early on most solutions are wrong, so that saying so is a shortcut: look at the balanced accuracy, which every measurement has.
``evaluate --self-verify`` weighs votes by the policy's own scores; the paper's exact weights are unknown, so that form is a reconstruction.
Checked against: the authors' code (``tests/vectors``: rise).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.collect.language.self_verification import SelfVerification
from rheostat.credit.annotations import OldScores, TokenGAE
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, RewardKL, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import PolicyGradient, TokenValue
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class RISE:
    """The 3B script's setting, with batch sizes for one machine."""

    groups: Groups = Groups(16, 8)
    verification: SelfVerification = SelfVerification()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    gae: TokenGAE = TokenGAE(1.0, 1.0)
    clip: Clip = Clip(0.2, 0.2)
    aggregate: Aggregate = Aggregate("token-mean")
    value_coefficient: float = option(1.0, at_least=0)
    """Weight of the critic's loss, which has the factor 1/2 already."""
    value_clip: float | None = option(0.5, above=0)
    """Clip of the critic's change."""
    kl: LossKL | RewardKL = RewardKL(0.01)
    """The KL to the starting model: part of the token rewards, or in the loss."""
    entropy_coefficient: float = option(0.001)
    """Weight of an entropy bonus."""
    update: Update = Update(minibatches=9)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 3e-4, "kl_coefficient": 0.0, "solution_rewards": "task", "minibatches": 3}
    }

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.value_coefficient else {"value_clip": "value_coefficient is 0, so the critic stays as it begins; leave it alone"}

    def compose(self) -> Composition:
        """The four answers."""
        tokens, verification = Tokens(self.aggregate), self.verification.over(self.groups)
        return Composition(
            collect=verification,
            retain=[self.keep],
            credit=[OldScores(), *self.kl.annotations, replace(self.gae, kl_penalty=self.kl.penalty)],
            improve=[
                self.update.of(
                    Weighted(PolicyGradient(tokens, self.clip)),
                    *regularisers(self, tokens),
                    Weighted(TokenValue(tokens, self.value_clip), self.value_coefficient, "value"),
                )
            ],
            models=policy_models(self.update, self.kl),
            measure=verification.measure,
        )
