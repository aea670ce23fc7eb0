"""RLPD: SAC with prior data, learning online from the first step with half of every batch from a data set.

Paper: Ball et al. 2023, arXiv 2302.02948.

Equations (what differs from sac; K = 10 critics with layer normalisation, Z = 2 of the slow ones drawn anew for every step)
    y           = r + gamma (1 - terminated) [min_{k in Z} Qbar_k(s', a') - alpha log pi(a'|s')]
    critics     = mean over k and rows of (Q_k(s, a) - y)^2
    policy      = mean [alpha log pi(a|s) - mean_k Q_k(s, a)]
    temperature = alpha mean (entropy - target),             target = -(action dimensions) / 2

WHO ACTS   the policy, after ``start_steps`` uniform actions.
KEPT       everything, beside the data set; offline rows at even places of a batch and online ones at odd places.
WORTH      the soft target above; time limits bootstrap.
MOVES      20 steps of the critics per environment step, each followed by the slow ones, then one step of policy and temperature on the
           last batch. No steps on the data alone before.

Without --offline it is the same method on its own data. The authors leave the entropy out of the backup, have three hidden layers and, on
AntMaze, take 1 of the slow critics (presets).
Checked against: a transcription of the authors' code (``tests/vectors``: baselines-control, cases rlpd_*).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import DataRewards, DataSet, ReplayAndData, States
from rheostat.collect.control.control_collectors import RandomFirst
from rheostat.credit.td_annotations import SoftTarget
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import Critics, CriticStep, Entropy, SoftActorStep, mean_q, squashed_actor
from rheostat.learner.control_models import TrainableNetwork, own_hidden
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, UsesData, from_replay
from rheostat.learner.own_networks import own_soft_policy
from rheostat.learner.rhythm import Delayed
from rheostat.options import option, value_or


@dataclass(frozen=True)
class RLPD:
    """The paper's setting for locomotion: layer normalisation bounds what the critics make of actions outside the data."""

    collect: RandomFirst = RandomFirst()
    replay: ReplayAndData = ReplayAndData(offline_share=0.5)
    rewards: DataRewards = DataRewards()
    states: States = States()
    batches: Rhythm = Rhythm(per_environment_step=20.0)
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    tau: float = option(0.005, share=True)
    """Share of the new critics in the target critics after each gradient step."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the policy, and of everything without one of its own."""
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    critics: Critics = Critics(10, normalisation=True, over="mean")
    target_critics: int = option(2, at_least=1)
    """Target critics of which the target takes the least (Z)."""
    policy_delay: int | None = option(None, at_least=1)
    """Steps of the critics per step of policy and temperature; None takes update_to_data."""
    entropy: Entropy = Entropy(share=0.5)
    entropy_in_backup: bool = option(True)
    """The entropy of later actions counts in the critics' target."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "optional"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "antmaze": {"entropy_in_backup": False, "hidden": (256,) * 3, "target_critics": 1, "reward_shift": -1.0},
        "adroit": {"entropy_in_backup": False, "hidden": (256,) * 3},
    }

    @property
    def delay(self) -> int:
        """Steps of the critics per step of policy and temperature."""
        return value_or(self.policy_delay, max(1, round(self.batches.per_environment_step)))

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return own_hidden(context, "policy", "critics")

    def compose(self) -> Composition:
        """SAC's answers beside a data set; policy and temperature move now and then.

        Raises:
            RheostatError: more target critics than critics.
        """
        if self.target_critics > self.critics.number:
            raise RheostatError(
                f"target_critics is {self.target_critics}: the target takes at least 1 and at most all of the "
                f"{self.critics.number} critics."
            )
        models: dict[str, Any] = {"policy": TrainableNetwork(squashed_actor(self.hidden), self.learning_rate, own=own_soft_policy)}
        models |= self.critics.models(self.hidden, self.learning_rate, self.tau)
        models["temperature"] = self.entropy.model(self.learning_rate)
        late = Delayed(self.delay, [SoftActorStep(mean_q), *self.entropy.steps], "critics' steps per step of the policy")
        target = SoftTarget(self.entropy_in_backup, self.target_critics)
        return from_replay(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(self.replay.share, after=self.collect.random_steps),
            PerStep(self.batches.size, [target], [CriticStep(self.critics.over, self.critics.scale), late]),
            models,
            stores=[DataSet(needed=False), self.rewards, self.states],
            read=AsRead(),
            log=self.log,
        )
