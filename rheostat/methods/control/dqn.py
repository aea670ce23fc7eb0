"""DQN: a network of action values, a slow copy for its targets, and mostly greedy actions.

Paper: Mnih et al. 2015, Nature 518 (arXiv 1312.5602); double DQN: van Hasselt et al. 2016, arXiv 1509.06461.

Equations (Qbar: the slow copy; a* = argmax_b Qbar(s', b), or argmax_b Q(s', b) in double DQN)
    y     = r + gamma (1 - terminated) Qbar(s', a*)
    loss  = mean h(Q(s, a) - y),      h(d) = d^2 / 2 where |d| < huber, else huber (|d| - huber / 2)

WHO ACTS   the greedy policy, or with probability epsilon a uniform action; epsilon falls linearly over a share of the budget.
KEPT       everything; drawn uniformly, or by the size of the error (``priority``, Schaul et al. 2016), with n-step returns (``n_step``).
WORTH      the target above; the slow copy takes over the network every ``target_every`` gradient steps (or by ``tau`` in each).
MOVES      one gradient step per ten environment steps.

The defaults are CleanRL's for vectors, and the preset atari is its setting for images, except that 100,000 transitions are kept, not a
million: each takes 56 kB. The slow copy's intervals are gradient steps here and environment steps in CleanRL, which squares the error
(``huber`` none), where the paper clips it to [-1, 1], which is Huber's loss. CleanRL acts by the schedule of epsilon from the first step;
here ``start_steps`` are uniform. The paper's RMSProp is Adam in both. Prioritised batches are fully corrected (the exponent beta is 1
throughout).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import ReplayBuffer, Rewards
from rheostat.collect.control.control_collectors import RandomFirst
from rheostat.credit.td_annotations import GreedyTarget
from rheostat.learner.action_values import ActionValueStep, Exploration, GreedyPolicy
from rheostat.learner.control_models import CONVOLUTIONS, TargetNetwork, own_hidden
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, from_replay
from rheostat.options import option


@dataclass(frozen=True)
class DQN:
    """CleanRL's setting for vectors."""

    collect: RandomFirst = RandomFirst(random_steps=10_000)
    exploration: Exploration = Exploration()
    replay: ReplayBuffer = ReplayBuffer(10_000)
    rewards: Rewards = Rewards()
    batches: Rhythm = Rhythm(128, 0.1)
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    learning_rate: float = option(2.5e-4, at_least=0)
    """Adam step size."""
    hidden: tuple[int, ...] = option((120, 84), at_least=1)
    """Hidden layers for vectors; images have three convolutions and a layer of 512 (Mnih et al.)."""
    double: bool = option(False)
    """Double DQN (van Hasselt et al. 2016): the network chooses the target's action, the slow copy judges it."""
    huber: float | None = option(1.0, above=0)
    """Error above which the loss is linear; None squares."""
    tau: float = option(1.0, share=True)
    """Share of the network in the slow copy when it follows; 1 copies it (Mnih et al.)."""
    target_every: int = option(50, at_least=1)
    """Gradient steps after which the slow copy follows."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    discrete: ClassVar[bool | None] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "atari": {
            "batch_size": 32,
            "learning_rate": 1e-4,
            "replay_capacity": 100_000,
            "start_steps": 80_000,
            "update_to_data": 0.25,
            "target_every": 250,
            "exploration_end": 0.01,
            "exploration_share": 0.1,
        }
    }

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.tau else {"target_every": "tau is 0, so the slow copy never follows; raise it, or leave it alone"}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return own_hidden(context, "policy") or ({"hidden": CONVOLUTIONS} if context.images else {})

    def compose(self) -> Composition:
        """The four answers."""
        models = {
            "policy": GreedyPolicy(self.hidden, self.learning_rate, self.exploration),
            "target policy": TargetNetwork("policy", self.tau, self.target_every),
        }
        return from_replay(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(after=self.collect.random_steps),
            PerStep(self.batches.size, [GreedyTarget(self.double)], [ActionValueStep(self.huber)]),
            models,
            stores=[self.rewards],
            read=AsRead(discrete=True),
            log=self.log,
        )
