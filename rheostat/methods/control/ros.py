"""ROS: robust on-policy sampling.

Paper: Zhong, Zhang, Corrado, Hanna, Albrecht 2022, "Robust On-Policy Sampling for Data-Efficient Policy Evaluation", arXiv 2111.14552;
here as the data collector of PPO, the way PROPS uses its parent as a baseline.

Equation
    phi = theta - alpha (1/N) sum_{(s,a) in D} grad log pi_theta(a|s)

WHO ACTS   a behaviour policy phi one gradient step away from the target theta, re-derived every ``behaviour_steps`` steps: the step
           lowers the probability of what is already in the window, and so raises that of under-sampled actions.
KEPT, WORTH, MOVES   as in ppo-buffer.

What differs from ppo: who acts. The sign is the paper's (the first PROPS code release moves the other way: see
``objectives.behaviour.ros_loss``). The step size depends on the parameterisation: the authors use 1e3 for tabular softmax policies, 10
for CartPole, 0.1 for continuous CartPole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import Blocks
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE
from rheostat.learner.behaviour_updates import RosUpdate
from rheostat.learner.control_models import Behaviour
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import FastPPO, KLStop, Network, SamplingErrorMeter
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.on_policy import on_policy
from rheostat.objectives.control_terms import ClippedSurrogate, SamplerWeight


@dataclass(frozen=True)
class ROS:
    """PPO with data collected by ROS."""

    collect: Blocks = Blocks()
    behaviour: RosUpdate = RosUpdate()
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
        """PPO's answers, with a behaviour policy that acts and has an update of its own in every turn."""
        update = replace(self.behaviour, block=self.collect.vector_steps, max_grad_norm=self.update.max_grad_norm)
        return on_policy(self, self.objective, stop=self.stop, models={"behaviour": Behaviour()}, improve=(update,))
