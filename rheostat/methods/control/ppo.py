"""PPO: proximal policy optimisation with the reference details.

Paper: Schulman et al. 2017, arXiv 1707.06347; details numbered as in Huang et al. 2022, "The 37 implementation details of PPO".

Equations
    ratio_i  = pi(a_i | s_i) / pi_start(a_i | s_i),         pi_start = the policy when this update began
    A_t      = sum_l (gamma lam)^l delta_{t+l},              delta_t = r_t + gamma V(s_{t+1}) (1 - terminated_t) - V(s_t)
    policy   = mean max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps))
    value    = 1/2 mean (V - R)^2;  with clip_value 1/2 mean max((V - R)^2, (V_clipped - R)^2)
    loss     = policy - c_H entropy + c_V value

WHO ACTS   the policy itself, in ``num_envs`` environments.
KEPT       the last ``window`` batches (1: strictly the fresh one; more: see ppo-buffer).
WORTH      GAE over the whole window with the current critic; truncated episodes bootstrap from the value of the true final observation.
MOVES      ``epochs`` passes of clipped-surrogate minibatch steps on everything kept.

What differs from CleanRL's reference: the value loss is not clipped (``clip_value`` clips it); truncation is not treated as death
(``bootstrap_on_truncation=False`` does what CleanRL does); raw observations and rewards are stored and the running statistics change once
per batch, between collecting and learning, so the log-probabilities of ``pi_start`` are recomputed and the first ratio is exactly 1.
Checked against: Stable-Baselines3 2.9.2 and CleanRL, number by number (``tests/vectors``: baselines-control, props).
"""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import Rollout
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import FastPPO, KLStop, Network, SamplingErrorMeter
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.on_policy import on_policy
from rheostat.objectives.control_terms import ClippedSurrogate, SamplerWeight


@dataclass(frozen=True)
class PPO:
    """Defaults are those of CleanRL's continuous-control script, on 8 environments instead of 1."""

    collect: Rollout = Rollout()
    keep: Window = Window()
    normalisation: Normalisation = Normalisation()
    gae: GAE = GAE()
    network: Network = Network()
    objective: ClippedSurrogate = ClippedSurrogate()
    sampler: SamplerWeight = SamplerWeight()
    stop: KLStop = KLStop()
    update: FastPPO = FastPPO()
    meter: SamplingErrorMeter = SamplingErrorMeter()
    log: Evaluations = Evaluations()
    dial: Dial = Dial()
    """How far off-policy the data may be."""

    def compose(self) -> Composition:
        """The four answers."""
        return on_policy(self, self.objective, stop=self.stop)
