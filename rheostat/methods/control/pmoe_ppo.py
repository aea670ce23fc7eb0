"""PMOE on PPO: proximal policy optimisation with a probabilistic mixture of experts for a policy.

Paper: Ren et al. 2021, "Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning", arXiv 2104.09122.

Equations (K experts; a_k a fresh draw of expert k, a constant; k* = argmax_k Q(s, a_k), the first of equals; R the target of GAE)
    pi(a|s)     = sum_k w_k(s) N(a; mu_k(s), sigma_k),      w = softmax(W s + b)
    policy      = as in ppo, with the ratio of the whole mixture's density
    action      = mean (Q(s, a) - R)^2      (the action critic; its options and metrics are called judge)
    weights     = mean over rows and k of (w_k - 1{k = k*})^2
    loss        = policy - c_H entropy + c_V value + action + weights

WHO ACTS   one expert, drawn from the weights.
KEPT       as in ppo.
WORTH      GAE, as in ppo; the action critic Q learns what an action led to, and says which expert's action is the best.
MOVES      all experts and the weights by the clipped ratio; the weights also towards how often each expert is the best.

What differs from ppo: the policy, the action critic, and the loss of the weights. With one expert it is ppo, but for the action critic's
share in the limit of the gradient's norm. The weights hear two voices: the density of the mixture, in which they are a part of the policy,
and the regression on the best expert; ``mixture_coefficient`` 0 leaves the first alone, and ``mixture_gradient`` has the alternatives to
the second, which are a reconstruction (see pmoe). Derivatives of the mixture are by hand. The entropy is an estimate that is
exact for one expert.

What the authors' code does otherwise: it takes the logarithm of a sum of exponentials, which is minus infinity for far actions; its
advantages run on across the ends of its buffer and its time limits are deaths; its action critic's last layer starts within +-0.003.
Constant learning rate and five experts are its, observations, rewards and everything else those of ppo.
Checked against: the authors' code (``tests/vectors``: pmoe, cases gmm_log_prob* and ppo_total_loss).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import Rollout
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import FastPPO, KLStop, SamplingErrorMeter
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.mixture import ActionCritic, Experts, Mixture, MixturePolicyNetwork, MixtureTerms
from rheostat.learner.on_policy import on_policy
from rheostat.objectives.control_terms import ClippedSurrogate, SamplerWeight
from rheostat.policies.control.mixture_networks import MixtureActorCritic
from rheostat.streams import derive_seed


@dataclass(frozen=True)
class PMOEPPO:
    """The authors' setting, on the environments of ppo; a user's network is a
    :class:`~rheostat.policies.control.mixture_networks.MixtureActorCritic`."""

    collect: Rollout = Rollout()
    keep: Window = Window()
    normalisation: Normalisation = Normalisation()
    gae: GAE = GAE()
    network: Experts = Experts()
    mixture: Mixture = Mixture(5)
    judge: ActionCritic = ActionCritic()
    objective: ClippedSurrogate = ClippedSurrogate(value=True)
    sampler: SamplerWeight = SamplerWeight()
    stop: KLStop = KLStop()
    update: FastPPO = FastPPO(anneal=False)
    meter: SamplingErrorMeter = SamplingErrorMeter()
    log: Evaluations = Evaluations()
    dial: Dial = Dial()
    """How far off-policy the data may be."""

    def build(self, context: Any) -> MixtureActorCritic:
        """The mixture with its critic and its action critic, untrained."""
        return MixtureActorCritic(
            context.observation_space,
            context.action_space,
            experts=self.mixture.size,
            hidden=self.network.hidden,
            judge_hidden=self.judge.hidden,
            activation=self.network.activation,
            seed=derive_seed(context.streams.seed, "network"),
        )

    def compose(self) -> Composition:
        """PPO's four answers with a mixture for a policy, its action critic, and the loss of its weights."""
        policy = MixturePolicyNetwork(self.build, self.update.learning_rate, self.mixture)
        extra = MixtureTerms(self.mixture, self.judge)
        return on_policy(self, self.objective, stop=self.stop, extra=extra, policy=policy)
