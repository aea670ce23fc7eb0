"""IQL: implicit Q-learning, which never asks its critics for an action outside the data.

Paper: Kostrikov et al. 2022, arXiv 2110.06169.

Equations (Qbar: the slow critics; a: the action of the data; u = min_k Qbar_k(s, a) - V(s))
    value       = mean |expectile - 1{u < 0}| u^2
    critics     = mean over k and rows of (Q_k(s, a) - [r + gamma (1 - terminated) V(s')])^2              Qbar follows Q by tau
    policy      = -mean min(exp(beta u), cap) log pi(a|s)

WHO ACTS   no one offline, then the policy: a Gaussian of constant deviation around the tanh of its mean (the environment clips), or with
           discrete actions a softmax.
KEPT       one buffer that begins with the data set, uniformly; or a fixed share of either (``offline_share``).
WORTH      an upper expectile of the values of the data's actions.
MOVES      imitation of the data, weighted by the exponential of the advantage.

Codes differ in which V is in use. ``values_in_use`` before: V(s') and u are from before the step of V (CORL); after: from after it, as
in the paper's algorithm 1 and the authors' code (JAX). CORL takes the mean over critics, the authors the sum (``over_critics``). Both let
the policy's step size fall to 0 by a cosine over the offline phase, and the authors keep it constant where an online phase follows.
Locomotion is rescaled to a range of returns of 1000 in the paper (``scale_returns_to``); AntMaze has 1 taken from every reward (preset).
Checked against: CORL (``tests/vectors``: baselines-control, cases iql_step and iql_step_clipped_weights).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import DataRewards, DataSet, ReplayAndData, States
from rheostat.collect.control.control_collectors import StepByStep
from rheostat.learner.actor_critic_updates import tanh_mean_actor
from rheostat.learner.control_models import OWN_NETWORK, TrainableNetwork, own_hidden
from rheostat.learner.dial import Dial
from rheostat.learner.implicit import Cosine, ImplicitCritics, imitation_of
from rheostat.learner.off_policy import AsRead, Logging, Rhythm, UsesData, data_first
from rheostat.learner.own_networks import own_likelihood
from rheostat.learner.stages import Staged
from rheostat.objectives.action_weights import ImitationWeights
from rheostat.options import option
from rheostat.policies.control.actors import LOG_STD, NO_DEVIATION


@dataclass(frozen=True)
class IQL:
    """The setting of the locomotion tasks (CORL standardises states, the authors do not)."""

    collect: StepByStep = StepByStep()
    replay: ReplayAndData = ReplayAndData()
    rewards: DataRewards = DataRewards()
    states: States = States(True)
    batches: Rhythm = Rhythm()
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the policy."""
    schedule: Cosine = Cosine()
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    log_std: tuple[float, float] = option(LOG_STD)
    """Limits of the policy's log standard deviation (the authors: -5 and 2)."""
    critics: ImplicitCritics = ImplicitCritics()
    weights: ImitationWeights = ImitationWeights()
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    uses_data: ClassVar[UsesData] = "first"
    discrete: ClassVar[bool | None] = None
    presets: ClassVar[dict[str, dict[str, Any]]] = {"antmaze": {"expectile": 0.9, "inverse_temperature": 10.0, "reward_shift": -1.0}}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        own = {"log_std": OWN_NETWORK} if "policy" in context.networks else {}
        return own_hidden(context, "policy", "critics", "value") | own | ({} if context.continuous else {"log_std": NO_DEVIATION})

    def compose(self) -> Staged:
        """The four answers, on a data set first."""
        models = {"policy": TrainableNetwork(tanh_mean_actor(self.hidden, self.log_std), self.learning_rate, own=own_likelihood)}
        return data_first(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(self.replay.share),
            self.critics.step(self.batches.size, imitation_of(self, self.weights, self.weights.cap)),
            models | self.critics.models(self.hidden, self.learning_rate),
            stores=[DataSet(), self.rewards, self.states],
            read=AsRead(discrete=None),
            log=self.log,
        )
