"""Robust On-policy Acting: choose the action that repairs the data most.

Paper: Zhong, Zhang, Corrado, Hanna, Albrecht 2022, arXiv 2111.14552 (the variant of ROS without a step size); here as the data collector
of PPO.

Equation
    a = argmin_a || (N g + grad log pi_theta(a|s)) / (N + 1) ||_1,       g = (1/N) sum_D grad log pi_theta,       with probability rho,
    else a ~ pi

WHO ACTS   with probability ``repair_probability`` the candidate above: all discrete actions, or 9 Gaussian quantiles; otherwise the
           target policy.
KEPT, WORTH, MOVES   as in ppo-buffer.

A warning: the median of a Gaussian has a zero score for everything but the log standard deviation, so with continuous actions a large
rho takes it nearly always and starves the tails; keep rho small there, or use ros or props.

What differs from ros: no behaviour network and no step size; it reacts to every single step, at the price of a per-sample gradient for
every candidate. The sampler's log-probability is that of the mixture for discrete actions and unknown (NaN) for continuous ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import RobustActing as Acting
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import FastPPO, KLStop, Network, SamplingErrorMeter
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.on_policy import on_policy
from rheostat.objectives.control_terms import ClippedSurrogate, SamplerWeight


@dataclass(frozen=True)
class RobustActing:
    """PPO with data collected by Robust On-policy Acting."""

    collect: Acting = Acting()
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

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        why = "the probability of a chosen continuous action is not known, so there is nothing to correct by; leave it alone"
        return {} if not context.continuous else dict.fromkeys(("sampler.correction", "objective.ratio_to"), why)

    def compose(self) -> Composition:
        """PPO's four answers; what differs is who acts."""
        return on_policy(self, self.objective, stop=self.stop)
