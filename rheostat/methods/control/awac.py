"""AWAC: advantage-weighted actor-critic, imitation of the data's good actions that goes on online without a break.

Paper: Nair et al. 2020, arXiv 2006.09359.

Equations (a' ~ pi(s'), a~ ~ pi(s): one draw each; lambda: ``advantage_temperature``)
    y       = r + gamma (1 - terminated) min_k Qbar_k(s', a')
    critics = sum_k mean (Q_k(s, a) - y)^2                                        Qbar follows Q by tau
    A       = min_k Q_k(s, a) - min_k Q_k(s, a~),                                 Q from after the critics' step
    policy  = -mean min(exp(A / lambda), cap) log pi(a|s)
    with discrete actions a' and a~ are all of them: the smallest Q has its mean over pi in their place

WHO ACTS   no one offline, then the policy: a Gaussian of constant deviation around the tanh of its mean (the environment clips).
KEPT       one buffer that begins with the data set, uniformly; or a fixed share of either (``offline_share``).
WORTH      the slow critics' value of the policy's own next action, without entropy.
MOVES      imitation of what was done, weighted by the exponential of the advantage.

Codes differ in the weights: the authors divide by their mean over the batch instead of a cap (``weights`` normalised) and hold the log
deviation in [-6, 0]; CORL's policy has no tanh on its mean. The constants are CORL's: lambda 1/3 on locomotion, 0.1 elsewhere (presets).
Checked against: CORL (``tests/vectors``: baselines-control, case awac_actor).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import DataRewards, DataSet, ReplayAndData, States
from rheostat.collect.control.control_collectors import StepByStep
from rheostat.credit.td_annotations import PolicyValueTarget
from rheostat.learner.actor_critic_updates import CriticStep, WeightedImitation, advantage_over_policy, ensemble_q, tanh_mean_actor
from rheostat.learner.control_models import OWN_NETWORK, TargetNetwork, TrainableNetwork, own_hidden
from rheostat.learner.dial import Dial
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, UsesData, data_first
from rheostat.learner.own_networks import own_critics, own_likelihood
from rheostat.learner.stages import Staged
from rheostat.objectives.action_weights import AdvantageWeights
from rheostat.options import option, value_or
from rheostat.policies.control.actors import LOG_STD, NO_DEVIATION


@dataclass(frozen=True)
class AWAC:
    """CORL's setting of the locomotion tasks (the authors do not standardise states)."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States(True)
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    tau: float = option(0.005, share=True)
    """Share of the new critics in the target critics after each gradient step."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the policy."""
    critic_learning_rate: float | None = option(None, at_least=0)
    """Adam step size of the critics; None takes learning_rate, and 0 keeps them as they begin."""
    hidden: tuple[int, ...] = option((256, 256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    log_std: tuple[float, float] = option(LOG_STD)
    """Limits of the policy's log standard deviation (the authors: -6 and 0)."""
    weights: AdvantageWeights = AdvantageWeights()
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    discrete: ClassVar[bool | None] = None
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "antmaze": {"advantage_temperature": 0.1, "reward_shift": -1.0},
        "adroit": {"advantage_temperature": 0.1},
        "maze2d": {"advantage_temperature": 0.1},
    }

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        own = {"log_std": OWN_NETWORK} if "policy" in context.networks else {}
        return own_hidden(context, "policy", "critics") | own | ({} if context.continuous else {"log_std": NO_DEVIATION})

    def compose(self) -> Staged:
        """The four answers, on a data set first."""
        models = {
            "policy": TrainableNetwork(tanh_mean_actor(self.hidden, self.log_std), self.learning_rate, own=own_likelihood),
            "critics": TrainableNetwork(ensemble_q(self.hidden), value_or(self.critic_learning_rate, self.learning_rate), own=own_critics),
            "target critics": TargetNetwork("critics", self.tau),
        }
        imitation = WeightedImitation(self.weights, self.weights.cap, advantage_over_policy)
        return data_first(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(self.replay.share),
            PerStep(self.batches.size, [PolicyValueTarget()], [CriticStep(), imitation]),
            models,
            stores=[DataSet(), self.rewards, self.states],
            read=AsRead(discrete=None),
            log=self.log,
        )
