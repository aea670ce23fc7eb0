"""CQL: conservative Q-learning, SAC whose critics are pushed down where the data have nothing to say.

Paper: Kumar et al. 2020, arXiv 2006.04779, CQL(H).

Equations (beyond sac; a_i: n actions each from uniform, pi(s) and pi(s'), all judged at s; mu: the density that drew each)
    gap_k       = log mean_i exp(Q_k(s, a_i) - log mu(a_i)) - Q_k(s, a)
    critics     = sum_k [mean (Q_k(s, a) - y)^2 + weight mean gap_k],         y without the entropy of later actions
    with discrete actions the first term is log sum_a exp Q_k(s, a), exactly, and terms of SAC are means over pi (Christodoulou 2019,
    arXiv 1910.07207); the paper's discrete form is Q-learning, whose target is that of best_next_action without entropy
    with a gap_threshold, weight becomes multiplier * weight * (mean gap_k - gap_threshold), and the multiplier climbs the same term

WHO ACTS   no one offline, then the policy of sac.
KEPT       one buffer that begins with the data set, uniformly; or a fixed share of either (``offline_share``).
WORTH      sac's target, learned by critics that stay below it outside the data.
MOVES      sac's step, with a slower policy.

Codes differ. CORL (preset) has weight 10, the sum over i instead of the mean (``sum_over_actions``; larger by log 3n, which counts with
a threshold or limits only), standardised states, and judges the policy by the critics from before their step (``simultaneous``). Its
warm-up by imitation (``imitation_steps``) never reads the data's action; this one does, as the authors' does. CORL's policy has two more
learned numbers, a factor and an offset of the log standard deviation; this one does not.
Checked against: CORL (``tests/vectors``: baselines-control, cases cql_critic_importance and cql_critic_plain).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import DataRewards, ReplayAndData, States
from rheostat.collect.control.control_collectors import StepByStep
from rheostat.learner.actor_critic_updates import Critics, Entropy, squashed_actor
from rheostat.learner.conservative_critics import Penalty, conservative_composition, conservative_models, conservative_step
from rheostat.learner.control_models import TrainableNetwork, own_hidden
from rheostat.learner.dial import Dial
from rheostat.learner.off_policy import AsRead, Logging, Rhythm, UsesData
from rheostat.learner.own_networks import own_soft_policy
from rheostat.learner.stages import Staged
from rheostat.options import option


@dataclass(frozen=True)
class CQL:
    """The paper's setting for locomotion, with a fixed weight."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States()
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    tau: float = option(0.005, share=True)
    """Share of the new critics in the target critics after each gradient step."""
    learning_rate: float = option(3e-5, at_least=0)
    """Adam step size of the policy and of the temperature."""
    hidden: tuple[int, ...] = option((256, 256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    critics: Critics = Critics(learning_rate=3e-4)
    penalty: Penalty = Penalty()
    entropy: Entropy = Entropy(form="log")
    entropy_in_backup: bool = option(False)
    """The entropy of later actions counts in the critics' target."""
    best_next_action: bool = option(False)
    """The target takes the best of ``penalty_actions`` actions at s' instead of one (AntMaze)."""
    imitation_steps: int = option(0, at_least=0)
    """First gradient steps, in which the policy imitates the data instead of asking the critics."""
    simultaneous: bool = option(False)
    """The policy is judged by the critics from before their step (CORL), not from after it."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    discrete: ClassVar[bool | None] = None
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "corl": {"conservative_weight": 10.0, "sum_over_actions": True, "normalise_states": True, "simultaneous": True},
        "corl-antmaze": {
            "learning_rate": 1e-4,
            "conservative_weight": 5.0,
            "sum_over_actions": True,
            "simultaneous": True,
            "gap_threshold": 0.8,
            "smallest_gap": -200.0,
            "initial_multiplier": 2.718281828459045,
            "best_next_action": True,
            "reward_scale": 10.0,
            "reward_shift": -5.0,
            "hidden": (256,) * 5,
        },
    }

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return own_hidden(context, "policy", "critics")

    def compose(self) -> Staged:
        """SAC's answers on a data set first, with critics that stay below it."""
        policy = TrainableNetwork(squashed_actor(self.hidden), self.learning_rate, own=own_soft_policy)
        step, online = (conservative_step(self, penalty) for penalty in (self.penalty, self.penalty.online))
        return conservative_composition(self, {"policy": policy} | conservative_models(self), step, online, AsRead(discrete=None))
