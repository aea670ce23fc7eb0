"""CTRLS: reasoning steps have latent states, and reinforcement moves only the policy of transitions between them.

Paper: Wu et al. 2025, "CTRLS: Chain-of-Thought Reasoning via Latent State-Transition", arXiv 2507.08182. No code was found.

**A large part of this is a reconstruction**: only parts of the paper's text were at hand, and what is marked [R] is ours.

Equations (steps s_1..s_T of a chain, states z_t in 1..K, E_t the token embeddings of step t, one row each)
    G_t = E_t^T E_t,   embedding: the k leading rows sqrt(l_i) q_i of its eigenpairs; the largest component of each is positive [R]
    ELBO = sum_t { sum_k q_t(k) log P(s_t | x, s_<t, k) - beta sum_j q_{t-1}(j) KL(q_t || p(. | j, h_{t-1})) }
    alpha_t = softplus(f(h_t)) + 0.1 [R],   p = alpha / sum alpha [R],   h_t = last hidden state of the text, state, step embedding [R]
    a_t ~ (1 - eps) Dir(alpha_t) + eps Dir(1, ..., 1),   z_{t+1} ~ Categorical(a_t)
    l_t = logaddexp( log(1 - eps) + log Dir(a_t; alpha_t), log eps + lgamma(K) ) [R]
    A_i = R_i - mean_g R [R]
    loss = - mean over steps of A_i l_it - 0.01 mean over steps of H(Dir(alpha_it))

WHO ACTS   the transition policy chooses the state of each step, and the frozen model writes it after the state's vector, one soft prefix
           [R]: ``group_size`` chains for each of ``prompts_per_batch`` prompts.
KEPT       the fresh batch, for one gradient step.
WORTH      the task's reward at the end, less the group's mean, on every step alike; nothing is divided.
MOVES      first, before the first batch, lessons: right chains of the model itself, clusters of their steps by k-means, the encoder towards
           the clusters [R], then encoder, transitions, state vectors and (a little) the model on the ELBO. Then the transitions alone.

What differs from grpo: the policy's actions are distributions over states, and its gradient stops there; no ratio and no clip, so no batch
is used twice; exploration is part of the density, so that actions far from alpha have nearly no gradient.
``permute_states`` is a control: what the generator reads has nothing to do with what was chosen, and no reward can be earned by choosing.

Reconstruction in more detail: the Dirichlet and its lower bound, the density of the mixture, the baseline, eps from 0.2 to 0 by a line,
all constants, both networks (one hidden layer), the soft prefix, which is read by the present step alone, and the first-order chain of
states in the bound. The encoder stays as the clusters taught it for most of the lessons (``encoder_held``): where it moves at once, the
states collapse into one before the model reads them. An action's entries are at least 1e-6. In measurements nothing explores.
Read-outs [R]: the total concentration says how sure the policy is of its distribution, the entropy of alpha / sum alpha how spread that
distribution is. No claim is made that either is calibrated.
The folder ``model`` of a run holds the language model alone; states and transitions are in the run, which ``rheostat evaluate`` reads.
Checked against: the equations (``tests/vectors``: ctrls).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.collect.language.latent_chains import StepRules
from rheostat.credit.annotations import GroupAdvantage
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.latent_training import ChainLessons, Exploration, LatentGroups, StatesModel, TransitionUpdate
from rheostat.learner.learner import Composition
from rheostat.learner.models import Trainable


@dataclass(frozen=True)
class CTRLS:
    """Eight states of three eigenvectors, with batch sizes for one machine; all numbers are ours."""

    groups: Groups = Groups(16, 8)
    rules: StepRules = StepRules()
    lessons: ChainLessons = ChainLessons()
    exploration: Exploration = Exploration()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("mean-baseline")
    update: TransitionUpdate = TransitionUpdate()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "step_separator": ";",
            "learning_rate": 1e-2,
            "offline_learning_rate": 3e-3,
            "adapt_learning_rate": 2e-3,
        }
    }

    def compose(self) -> Composition:
        """The four answers."""
        groups = LatentGroups(self.groups.prompts, self.groups.size, self.rules, self.lessons, self.exploration)
        return Composition(
            collect=groups,
            retain=[self.keep],
            credit=[self.advantage],
            improve=[self.update],
            models={
                "policy": Trainable(self.lessons.adapt),
                "states": StatesModel(self.rules, self.lessons.learning_rate),
                "transition": self.update.trained(self.rules),
            },
        )
