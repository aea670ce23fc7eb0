"""SAC: soft actor-critic with an automatic temperature.

Paper: Haarnoja et al. 2018, arXiv 1801.01290, and the temperature of arXiv 1812.05905.

Equations (a' ~ pi(s'), a reparameterised from pi(s); alpha = exp(log_alpha) as it was when the step began)
    y           = r + gamma (1 - terminated) [min_k Qbar_k(s', a') - alpha log pi(a'|s')]
    critics     = sum_k mean (Q_k(s, a) - y)^2                                     Qbar follows Q by tau
    policy      = mean [alpha log pi(a|s) - min_k Q_k(s, a)]
    temperature = -alpha mean (log pi(a|s) + target),      target = -(action dimensions)

WHO ACTS   the policy: tanh of a Gaussian.
KEPT       everything, uniformly; the true next observation, and only termination stops the bootstrap.
WORTH      the soft target above, from the smaller of two slow critics.
MOVES      one step of critics, policy and temperature per environment step.

Codes differ in constants that change effective learning rates: Stable-Baselines3 halves the critics' loss and differentiates log alpha
(``critic_scale`` 0.5, ``temperature_form`` log: what the tests compare); CleanRL moves the critics with 1e-3 and the policy every second
step, twice. Actions are unit actions, so log-probabilities and the target entropy do not depend on the environment's bounds.
Checked against: Stable-Baselines3 2.9.2 (``tests/vectors``: baselines-control, cases sac_sb3_step and tanh_gaussian_logprob).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.buffers.control_retainers import ReplayBuffer, Rewards
from rheostat.collect.control.control_collectors import RandomFirst
from rheostat.credit.td_annotations import SoftTarget
from rheostat.learner.actor_critic_updates import Critics, CriticStep, Entropy, SoftActorStep, squashed_actor
from rheostat.learner.control_models import TrainableNetwork, own_hidden
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, from_replay
from rheostat.learner.own_networks import own_soft_policy
from rheostat.options import option


@dataclass(frozen=True)
class SAC:
    """The papers' setting."""

    collect: RandomFirst = RandomFirst()
    replay: ReplayBuffer = ReplayBuffer()
    rewards: Rewards = Rewards()
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    tau: float = option(0.005, share=True)
    """Share of the new critics in the target critics after each gradient step."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the policy, and of everything without one of its own."""
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    critics: Critics = Critics()
    entropy: Entropy = Entropy()
    entropy_in_backup: bool = option(True)
    """The entropy of later actions counts in the critics' target."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return own_hidden(context, "policy", "critics")

    def compose(self) -> Composition:
        """The four answers."""
        models: dict[str, Any] = {"policy": TrainableNetwork(squashed_actor(self.hidden), self.learning_rate, own=own_soft_policy)}
        models |= self.critics.models(self.hidden, self.learning_rate, self.tau)
        models["temperature"] = self.entropy.model(self.learning_rate)
        updates = [CriticStep(self.critics.over, self.critics.scale), SoftActorStep(), *self.entropy.steps]
        return from_replay(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(after=self.collect.random_steps),
            PerStep(self.batches.size, [SoftTarget(self.entropy_in_backup)], updates),
            models,
            stores=[self.rewards],
            read=AsRead(),
            log=self.log,
        )
