"""TD3: a deterministic policy up the gradient of the first of two critics.

Paper: Fujimoto et al. 2018, arXiv 1802.09477.

Equations (mu: the policy; bars: slow copies; n standard normal)
    a'       = clip(mubar(s') + clip(target_noise n, -noise_clip, noise_clip), -1, 1)
    y        = r + gamma (1 - terminated) min_k Qbar_k(s', a')
    critics  = sum_k mean (Q_k(s, a) - y)^2
    policy   = -mean Q_1(s, mu(s)),      every policy_delay-th step, before the slow copies follow by tau

WHO ACTS   the policy with Gaussian noise, limited to the bounds.
KEPT       everything, uniformly; the true next observation, and only termination stops the bootstrap.
WORTH      the target above: the slow policy's action, smoothed by noise, judged by the smaller of two slow critics.
MOVES      one step of the critics per environment step; the policy and all slow copies every second one.

The defaults are those of CleanRL and of the authors' code, which agree; the paper itself has hidden layers of 400 and 300, batches of 100,
step sizes of 1e-3 and 1,000 or 10,000 uniform steps. All noise is in unit actions: shares of the largest action in both codes.
Checked against: the formula in the authors' code (``tests/vectors``: baselines-control, case td3_target).
"""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.buffers.control_retainers import ReplayBuffer, Rewards
from rheostat.collect.control.control_collectors import RandomFirst
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Logging, Rhythm, from_replay
from rheostat.learner.twin_critics import TwinCritics
from rheostat.options import option


@dataclass(frozen=True)
class TD3:
    """The authors' setting."""

    collect: RandomFirst = RandomFirst(random_steps=25_000)
    replay: ReplayBuffer = ReplayBuffer()
    rewards: Rewards = Rewards()
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    networks: TwinCritics = TwinCritics()
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    def compose(self) -> Composition:
        """The four answers."""
        return from_replay(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(after=self.collect.random_steps),
            self.networks.step(self.batches.size),
            self.networks.models(),
            stores=[self.rewards],
            read=AsRead(),
            log=self.log,
        )
