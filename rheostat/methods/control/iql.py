"""IQL: implicit Q-learning, which never asks its critics for an action outside the data.

Paper: Kostrikov et al. 2022, arXiv 2110.06169.

Equations (Qbar: the slow critics; a: the action of the data; u = min_k Qbar_k(s, a) - V(s))
    value       = mean |expectile - 1{u < 0}| u^2
    critics     = mean over k and rows of (Q_k(s, a) - [r + gamma (1 - terminated) V(s')])^2              Qbar follows Q by tau
    policy      = -mean min(exp(beta u), cap) log pi(a|s)

WHO ACTS   nobody, then the policy: a Gaussian of constant deviation around the tanh of its mean (the world clips).
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
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.off_policy import OffPolicy, OffPolicyConfig, UsesData
from rheostat.objectives.expectile import expectile_loss
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.temporal_difference import OverCritics, absolute_td_error, critic_loss, least, td_target
from rheostat.objectives.weights import exponential_weight
from rheostat.policies.control.actors import LOG_STD, TanhMeanActor
from rheostat.policies.control.critics import EnsembleQ, StateValue
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.parameters import Target, Trained
from rheostat.trajectories import Transitions

ValuesInUse = Literal["before", "after"]


@dataclass(frozen=True)
class IQLConfig(OffPolicyConfig):
    """The setting of the locomotion tasks."""

    normalise_states: bool = True
    """Standardise observations by the mean and deviation of the data set (CORL; the authors do not)."""
    expectile: float = 0.7
    """Of the data's values that V aims at; 0.5 is their mean, 1 their largest."""
    inverse_temperature: float = 3.0
    """beta, in 1 / units of value: 0 imitates the data, large values only their best actions."""
    weight_cap: float = 100.0
    """Largest weight of an action of the data."""
    values_in_use: ValuesInUse = "before"
    """V in the critics' target and in the advantage: from before its step (CORL), or after (the authors)."""
    over_critics: OverCritics = "mean"
    """The critics' loss is the mean over critics (CORL) or their sum (the authors)."""
    critic_learning_rate: float | None = None
    """Adam step size of V and Q; None takes learning_rate."""
    anneal: bool | None = None
    """Let the policy's step size fall to 0 by a cosine over the run; None does so where no online phase follows."""
    log_std: tuple[float, float] = LOG_STD
    """Limits of the policy's log standard deviation (the authors: -5 and 2)."""


class IQL(OffPolicy):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = IQLConfig
    config: IQLConfig
    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"antmaze": {"expectile": 0.9, "inverse_temperature": 10.0, "reward_shift": -1.0}}

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """The chassis's numbers, after a look at the two exponents."""
        assert isinstance(config, IQLConfig)
        if not 0 < config.expectile < 1:
            raise RheostatError(f"expectile is {config.expectile}: it lies between 0 and 1, and 0.7 to 0.9 is usual.")
        if config.inverse_temperature < 0 or config.weight_cap <= 0:
            raise RheostatError("inverse_temperature must be at least 0 and weight_cap above 0.")
        return super().derived(config)

    def build(self) -> None:
        """A Gaussian actor, two critics with slow copies, and a value."""
        config, draw = self.config, self.streams["networks"]
        seen, acted = self.sizes
        self.policy = self.build_policy(seen, acted, draw)
        self.actor = Trained(self.policy, config.learning_rate)
        rate = config.critic_learning_rate or config.learning_rate
        self.critics = Trained(EnsembleQ(seen, acted, hidden=config.hidden, generator=draw), rate)
        self.targets = Target(self.critics)
        self.values = Trained(StateValue(seen, hidden=config.hidden, generator=draw), rate)

    def build_policy(self, seen: int, acted: int, draw: torch.Generator) -> TanhMeanActor:
        """The actor, from the features of an observation and of an action."""
        return TanhMeanActor(seen, acted, hidden=self.config.hidden, log_std=self.config.log_std, generator=draw)

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return {"actor": self.actor, "critics": self.critics, "targets": self.targets, "values": self.values}

    def distribution(self, observation: Tensor) -> Gaussian:
        """The policy of unit actions."""
        return self.policy.distribution(observation)

    def value(self, observation: Tensor) -> Tensor:
        """V of raw observations, ``[N]``: the expectile of the data's actions."""
        return self.values.network(self.normalise(observation))

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """Value, critics, policy, slow critics; all of them read the slow critics as they were."""
        with torch.no_grad():
            best = least(self.targets.network(rows.observation, rows.action))
            value, next_value = self.values.network(rows.observation), self.values.network(rows.next_observation)
        found = self.value_step(rows, best)
        if self.config.values_in_use == "after":
            with torch.no_grad():
                value, next_value = self.values.network(rows.observation), self.values.network(rows.next_observation)
        found |= self.critic_step(rows, next_value) | self.actor_step(rows, best - value)
        self.targets.follow(self.config.tau)
        return found

    def value_step(self, rows: Transitions, best: Tensor) -> dict[str, Tensor | float]:
        """One step of V towards an expectile of ``best`` ``[B]``."""
        value = self.values.network(rows.observation)
        loss = expectile_loss(value, best, self.config.expectile, weight=rows.weight)
        self.values.descend(loss)
        return {"value_loss": loss.detach(), "value": value.detach().mean()}

    def critic_step(self, rows: Transitions, next_value: Tensor) -> dict[str, Tensor | float]:
        """One step of both critics, from V(s') ``[B]``."""
        target = td_target(rows.reward, next_value, rows.discount)
        q = self.critics.network(rows.observation, rows.action)
        loss = critic_loss(q, target, critics=self.config.over_critics, weight=rows.weight)
        self.critics.descend(loss)
        self.rank(rows, absolute_td_error(q, target))
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target": target.mean()}

    def actor_step(self, rows: Transitions, advantage: Tensor) -> dict[str, Tensor | float]:
        """One step of weighted imitation, from advantages ``[B]``."""
        weight = self.action_weight(rows, advantage)
        policy = self.distribution(rows.observation)
        loss = weighted_likelihood(policy.log_prob(rows.action), weight=weight)
        self.set_learning_rate()
        self.actor.descend(loss)
        return {
            "policy_loss": loss.detach(),
            "entropy": policy.entropy().detach().mean(),
            "advantage": advantage.mean(),
            "action_weight": weight.mean(),
            "capped_share": (weight >= self.config.weight_cap).float().mean(),
        }

    def action_weight(self, rows: Transitions, advantage: Tensor) -> Tensor:
        """How much every action of the data counts, ``[B]``."""
        return exponential_weight(advantage, self.config.inverse_temperature, self.config.weight_cap)

    def set_learning_rate(self) -> None:
        """Of the policy's next step."""
        annealed = self.config.anneal if self.config.anneal is not None else self.budget == self.offline_budget
        if annealed:
            self.actor.learning_rate = self.config.learning_rate * self.cosine()
