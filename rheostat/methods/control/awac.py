"""AWAC: advantage-weighted actor-critic, imitation of the data's good actions that goes on online without a break.

Paper: Nair et al. 2020, arXiv 2006.09359.

Equations (a' ~ pi(s'), a~ ~ pi(s): one draw each; lambda: ``advantage_temperature``)
    y       = r + gamma (1 - terminated) min_k Qbar_k(s', a')
    critics = sum_k mean (Q_k(s, a) - y)^2                                        Qbar follows Q by tau
    A       = min_k Q_k(s, a) - min_k Q_k(s, a~),                                 Q from after the critics' step
    policy  = -mean min(exp(A / lambda), cap) log pi(a|s)

WHO ACTS   nobody, then the policy: a Gaussian of constant deviation around the tanh of its mean (the world clips).
KEPT       one buffer that begins with the data set, uniformly; or a fixed share of either (``offline_share``).
WORTH      the slow critics' value of the policy's own next action, without entropy.
MOVES      imitation of what was done, weighted by the exponential of the advantage.

Codes differ in the weights: the authors divide by their mean over the batch instead of a cap (``weights`` normalised) and hold the log
deviation in [-6, 0]; CORL's policy has no tanh on its mean. The constants are CORL's: lambda 1/3 on locomotion, 0.1 elsewhere (presets).
Checked against: CORL (``tests/vectors``: baselines-control, case awac_actor).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.off_policy import OffPolicy, OffPolicyConfig, UsesData
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.temporal_difference import absolute_td_error, critic_loss, least, td_target
from rheostat.objectives.weights import batch_exponential_weight, exponential_weight
from rheostat.policies.control.actors import LOG_STD, TanhMeanActor
from rheostat.policies.control.critics import EnsembleQ
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.parameters import Target, Trained
from rheostat.trajectories import Transitions

Weights = Literal["capped", "normalised"]


@dataclass(frozen=True)
class AWACConfig(OffPolicyConfig):
    """CORL's setting of the locomotion tasks."""

    hidden: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of actor and critics."""
    normalise_states: bool = True
    """Standardise observations by the mean and deviation of the data set (CORL; the authors do not)."""
    advantage_temperature: float = 1 / 3
    """lambda, in units of value: small values imitate only the best actions, large ones the whole data."""
    weights: Weights = "capped"
    """Weights of the data's actions have a cap, or are divided by their mean over the batch (the authors)."""
    weight_cap: float = 100.0
    """Largest weight of an action of the data."""
    critic_learning_rate: float | None = None
    """Adam step size of the critics; None takes learning_rate."""
    log_std: tuple[float, float] = LOG_STD
    """Limits of the policy's log standard deviation (the authors: -6 and 0)."""


class AWAC(OffPolicy):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = AWACConfig
    config: AWACConfig
    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "antmaze": {"advantage_temperature": 0.1, "reward_shift": -1.0},
        "adroit": {"advantage_temperature": 0.1},
        "maze2d": {"advantage_temperature": 0.1},
    }

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """The chassis's numbers, after a look at the weights."""
        assert isinstance(config, AWACConfig)
        if config.advantage_temperature <= 0 or config.weight_cap <= 0:
            raise RheostatError("advantage_temperature and weight_cap must be above 0.")
        return super().derived(config)

    def build(self) -> None:
        """A Gaussian actor and two critics with slow copies."""
        config, draw = self.config, self.streams["networks"]
        seen, acted = self.sizes
        self.policy = TanhMeanActor(seen, acted, hidden=config.hidden, log_std=config.log_std, generator=draw)
        self.actor = Trained(self.policy, config.learning_rate)
        critics = EnsembleQ(seen, acted, hidden=config.hidden, generator=draw)
        self.critics = Trained(critics, config.critic_learning_rate or config.learning_rate)
        self.targets = Target(self.critics)

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return {"actor": self.actor, "critics": self.critics, "targets": self.targets}

    def distribution(self, observation: Tensor) -> Gaussian:
        """The policy of unit actions."""
        return self.policy.distribution(observation)

    def value(self, observation: Tensor) -> Tensor:
        """The smaller critic at the policy's deterministic action, ``[N]``."""
        seen = self.normalise(observation)
        return least(self.critics.network(seen, self.distribution(seen).mode()))

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """Critics, policy, slow critics."""
        found = self.critic_step(rows) | self.actor_step(rows)
        self.targets.follow(self.config.tau)
        return found

    def draw_unit(self, policy: Gaussian) -> Tensor:
        """Actions as the world takes them: inside the bounds, ``[B, d]``."""
        return policy.sample(self.streams["updates"]).clamp(-1.0, 1.0)

    def critic_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of both critics; tells a prioritised replay how wrong they were."""
        with torch.no_grad():
            action = self.draw_unit(self.distribution(rows.next_observation))
            target = td_target(rows.reward, least(self.targets.network(rows.next_observation, action)), rows.discount)
        q = self.critics.network(rows.observation, rows.action)
        loss = critic_loss(q, target, weight=rows.weight)
        self.critics.descend(loss)
        self.rank(rows, absolute_td_error(q, target))
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target": target.mean()}

    def actor_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of weighted imitation."""
        policy = self.distribution(rows.observation)
        with torch.no_grad():
            own = least(self.critics.network(rows.observation, self.draw_unit(policy)))
            advantage = least(self.critics.network(rows.observation, rows.action)) - own
        weight = self.action_weight(advantage)
        loss = weighted_likelihood(policy.log_prob(rows.action), weight=weight)
        self.actor.descend(loss)
        return {
            "policy_loss": loss.detach(),
            "entropy": policy.entropy().detach().mean(),
            "advantage": advantage.mean(),
            "action_weight": weight.mean(),
            "capped_share": (weight >= self.config.weight_cap).float().mean(),
        }

    def action_weight(self, advantage: Tensor) -> Tensor:
        """How much every action of the data counts, ``[B]``."""
        scale = 1 / self.config.advantage_temperature
        if self.config.weights == "normalised":
            return batch_exponential_weight(advantage, scale)
        return exponential_weight(advantage, scale, self.config.weight_cap)
