"""PPO-Buffer: PPO that also learns from the last batches, as if they were on-policy. The baseline PROPS is compared with.

Source: Corrado & Hanna 2023, arXiv 2311.08290 (there "PPO-Buffer"): the data reuse of PROPS without its adaptive sampling.

What differs from ppo: ``window`` is 2, so every update learns from the fresh batch and the one before it. There is no importance correction
towards the policy that sampled the old rows: ratios are against the policy at the start of the update, and the meter shows the price.
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
class PPOBuffer:
    """PPO with a window of two batches."""

    collect: Rollout = Rollout()
    keep: Window = Window(2)
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
        """PPO's four answers; what differs is how many batches are kept."""
        return on_policy(self, self.objective, stop=self.stop)
