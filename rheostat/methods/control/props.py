"""PROPS: proximal robust on-policy sampling.

Paper: Corrado & Hanna 2023, "On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling", arXiv 2311.08290.

Equations (phi the behaviour policy, theta the target, D the window)
    rho_i = pi_phi(a_i|s_i) / pi_theta(a_i|s_i)
    loss  = mean_i max(rho_i, clip(rho_i, 1 - eps, 1 + eps)) + lambda KL,        minimised over phi, starting from phi = theta
    stop  before a step whose minibatch has mean(rho - 1 - log rho) > delta

WHO ACTS   phi, re-derived from theta every ``behaviour_steps`` (m) steps by pushing down the probability of what the window already
           holds, and so up that of under-sampled actions. A row pushed below 1 - eps gives no more gradient.
KEPT       the last ``window`` (b) batches.
WORTH      GAE over the whole ordered window with the current critic.
MOVES      theta by PPO on everything kept, without any correction towards phi: the window is *meant* to look on-policy.

What differs from ros: many clipped, regularised minibatch steps with Adam instead of one plain gradient step, so the behaviour policy
can go further without running away. KL is KL(phi || theta), mean over rows and action dimensions, for Gaussian actions (as the authors'
code has it; the paper appears to write the other direction), and the exact KL(theta || phi) for discrete actions (reconstruction: the
released discrete term is broken).

What the authors' code does differently, and is not reproduced: the first release computes the reference log-probabilities before the PPO
step but copies theta after it; the second re-derives phi inside collection, so the first m steps after a PPO update act from the old
theta; timeouts are terminations (``bootstrap_on_truncation=False`` does that); observations are recovered from clipped normalised values
(raw ones are stored here).
Defaults are the authors' for Hopper, on 8 environments instead of 1; ``preset`` has their other tasks.
Checked against: both code releases, number by number (``tests/vectors``: props).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import Blocks
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE
from rheostat.learner.behaviour_updates import PropsUpdate
from rheostat.learner.control_models import Behaviour
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import FastPPO, KLStop, Network, SamplingErrorMeter
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.on_policy import on_policy
from rheostat.objectives.control_terms import ClippedSurrogate, SamplerWeight


def _preset(
    n: int, m: int, lr: float, behaviour_lr: float, delta: float, coefficient: float, minibatches: int, eps: float
) -> dict[str, Any]:
    return {
        "batch_steps": n,
        "behaviour_steps": m,
        "learning_rate": lr,
        "behaviour_learning_rate": behaviour_lr,
        "behaviour_target_kl": delta,
        "behaviour_kl_coefficient": coefficient,
        "behaviour_minibatches": minibatches,
        "behaviour_clip": eps,
    }


@dataclass(frozen=True)
class PROPS:
    """The authors' setting for Hopper: the update of the policy looks at its KL before every step."""

    collect: Blocks = Blocks(block=256)
    behaviour: PropsUpdate = PropsUpdate()
    keep: Window = Window(2)
    normalisation: Normalisation = Normalisation()
    gae: GAE = GAE()
    network: Network = Network()
    objective: ClippedSurrogate = ClippedSurrogate()
    sampler: SamplerWeight = SamplerWeight()
    stop: KLStop = KLStop(0.03, "before-step")
    update: FastPPO = FastPPO(learning_rate=1e-3, entropy_coefficient=0.01)
    meter: SamplingErrorMeter = SamplingErrorMeter()
    log: Evaluations = Evaluations()
    dial: Dial = Dial()
    """How far off-policy the data may be."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "swimmer": _preset(2048, 1024, 1e-3, 1e-5, 0.03, 0.1, 16, 0.3),
        "hopper": _preset(2048, 256, 1e-3, 1e-3, 0.05, 0.3, 16, 0.3),
        "halfcheetah": _preset(1024, 512, 1e-4, 1e-3, 0.05, 0.3, 16, 0.3),
        "walker2d": _preset(2048, 256, 1e-3, 1e-3, 0.1, 0.3, 32, 0.3),
        "ant": _preset(2048, 256, 1e-4, 1e-3, 0.03, 0.1, 16, 0.05),
        "humanoid": _preset(8192, 256, 1e-4, 1e-4, 0.1, 0.1, 32, 0.3),
        "discrete": _preset(1024, 128, 1e-3, 1e-3, 0.03, 0.1, 8, 0.3) | {"window": 1},
        "discrete-v2": _preset(2048, 16, 1e-3, 1e-3, 0.01, 0.0, 4, 0.3) | {"window": 1},
    }

    def compose(self) -> Composition:
        """ROS's answers with another update of the behaviour policy; advantages are needed in between where rows are weighted by them."""
        update = replace(
            self.behaviour,
            block=self.collect.vector_steps,
            max_grad_norm=self.update.max_grad_norm,
            window_steps=self.keep.batches * self.collect.steps - self.collect.block,
        )
        return on_policy(
            self,
            self.objective,
            stop=self.stop,
            models={"behaviour": Behaviour(self.behaviour.learning_rate)},
            improve=(update,),
            credit_every=1 if self.behaviour.advantage_weighted else None,
        )
