"""A2C: synchronous advantage actor-critic.

Paper: Mnih et al. 2016, arXiv 1602.01783, in its synchronous form (OpenAI Baselines, Stable-Baselines3).

Equation
    loss = -mean(A log pi(a|s)) + c_V mean (R - V)^2 - c_H entropy,      one gradient step per rollout

What differs from ppo: no ratio and no clipping (one step on fresh data needs none), no advantage normalisation, lambda 1, the value loss
without the half, and RMSprop (alpha 0.99, eps 1e-5) on the whole rollout at once.
Checked against: Stable-Baselines3 2.9.2 (``tests/vectors``: baselines-control, case a2c_sb3).
"""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import Rollout
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE
from rheostat.learner.control_models import PolicyNetwork
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import FastPPO, Network, SamplingErrorMeter
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.on_policy import on_policy
from rheostat.objectives.control_terms import PlainSurrogate, SamplerWeight


@dataclass(frozen=True)
class A2C:
    """Stable-Baselines3's defaults: five steps in each of eight environments per update, one pass over the whole rollout at once (a second
    would be off-policy without a correction), a constant step size, full n-step returns, advantages as they are."""

    collect: Rollout = Rollout(steps=40)
    keep: Window = Window()
    normalisation: Normalisation = Normalisation()
    gae: GAE = GAE(lam=1.0)
    network: Network = Network()
    sampler: SamplerWeight = SamplerWeight()
    update: FastPPO = FastPPO(epochs=1, minibatches=1, learning_rate=7e-4, anneal=False, normalise_advantage=False)
    meter: SamplingErrorMeter = SamplingErrorMeter()
    log: Evaluations = Evaluations()
    dial: Dial = Dial()
    """How far off-policy the data may be."""

    def compose(self) -> Composition:
        """PPO's four answers with another objective and another optimiser."""
        return on_policy(self, PlainSurrogate(), policy=PolicyNetwork(self.network, self.update.learning_rate, "rmsprop"))
