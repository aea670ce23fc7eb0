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
step, twice. Actions are unit actions, so log-probabilities and the target entropy do not depend on the world's bounds.
Checked against: Stable-Baselines3 2.9.2 (``tests/vectors``: baselines-control, cases sac_sb3_step and tanh_gaussian_logprob).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.learner.off_policy import OffPolicy, OffPolicyConfig
from rheostat.objectives.actor import TemperatureForm, soft_actor_loss, temperature_loss
from rheostat.objectives.temporal_difference import OverCritics, absolute_td_error, critic_loss, least, soft_value, td_target
from rheostat.policies.control.actors import SquashedActor, Temperature
from rheostat.policies.control.critics import EnsembleQ
from rheostat.policies.control.squashed import SquashedGaussian
from rheostat.policies.parameters import Target, Trained
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class SACConfig(OffPolicyConfig):
    """The papers' setting."""

    critics: int = 2
    """Critics in the ensemble (K)."""
    critic_normalisation: bool = False
    """Layer normalisation in the critics (RLPD)."""
    critic_learning_rate: float | None = None
    """Adam step size of the critics; None takes learning_rate."""
    over_critics: OverCritics = "sum"
    """The critics' loss is the sum over critics, or their mean (RLPD)."""
    critic_scale: float = 1.0
    """Factor of the critics' loss (Stable-Baselines3: 0.5)."""
    temperature: float | None = None
    """Fixed alpha; None learns it."""
    initial_temperature: float = 1.0
    """Where a learned alpha starts."""
    entropy_in_backup: bool = True
    """The entropy of later actions counts in the critics' target."""
    target_entropy: float | None = None
    """Entropy that a learned alpha holds, nats; None is minus the number of action dimensions."""
    temperature_form: TemperatureForm = "exp"
    """The temperature's loss has the factor alpha (exp) or log alpha (log)."""


class SAC(OffPolicy):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = SACConfig
    config: SACConfig

    def build(self) -> None:
        """A squashed Gaussian actor, two critics with slow copies, and a temperature."""
        config = self.config
        seen, acted = self.sizes
        draw = self.streams["networks"]
        self.policy = self.build_actor()
        self.actor = Trained(self.policy, config.learning_rate)
        critics = EnsembleQ(
            seen, acted, networks=config.critics, hidden=config.hidden, normalise=config.critic_normalisation, generator=draw
        )
        self.critics = Trained(critics, config.critic_learning_rate or config.learning_rate)
        self.targets = Target(self.critics)
        self.temperature = Temperature(config.initial_temperature if config.temperature is None else config.temperature)
        self.thermostat = Trained(self.temperature, config.learning_rate)
        self.target_entropy = -float(acted) if config.target_entropy is None else config.target_entropy

    def build_actor(self) -> SquashedActor:
        """The policy's network."""
        return SquashedActor(*self.sizes, hidden=self.config.hidden, generator=self.streams["networks"])

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return {"actor": self.actor, "critics": self.critics, "targets": self.targets, "temperature": self.thermostat}

    def distribution(self, observation: Tensor) -> SquashedGaussian:
        """The policy of unit actions."""
        return self.policy.distribution(observation)

    def value(self, observation: Tensor) -> Tensor:
        """The smaller critic at the policy's deterministic action, ``[N]``."""
        seen = self.normalise(observation)
        return least(self.critics.network(seen, self.distribution(seen).mode()))

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """Critics, policy, temperature, slow critics."""
        alpha = self.temperature.value
        found = self.critic_step(rows, alpha) | self.actor_step(rows, alpha)
        self.targets.follow(self.config.tau)
        return found

    def target(self, rows: Transitions, alpha: float) -> Tensor:
        """What the critics regress on, ``[B]``."""
        with torch.no_grad():
            action, log_prob = self.draw_soft(rows.next_observation)
            value = self.bootstrap(rows.next_observation, action)
            if self.config.entropy_in_backup:
                value = soft_value(value, log_prob, alpha)
            return td_target(rows.reward, value, rows.discount)

    def draw_soft(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterised action of the policy ``[B, D]`` and its log-probability ``[B]``."""
        policy = self.distribution(observation)
        return policy.draw(policy.noise(self.streams["updates"]))

    def bootstrap(self, observation: Tensor, action: Tensor) -> Tensor:
        """The slow critics' word on what follows, ``[B]``."""
        return least(self.targets.network(observation, action))

    def critic_step(self, rows: Transitions, alpha: float) -> dict[str, Tensor | float]:
        """One step of all critics; tells a prioritised replay how wrong they were."""
        target = self.target(rows, alpha)
        q = self.critics.network(rows.observation, rows.action)
        loss = critic_loss(q, target, critics=self.config.over_critics, scale=self.config.critic_scale, weight=rows.weight)
        self.critics.descend(loss)
        self.rank(rows, absolute_td_error(q, target))
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target": target.mean()}

    def actor_step(self, rows: Transitions, alpha: float) -> dict[str, Tensor | float]:
        """One step of the policy and of the temperature."""
        action, log_prob = self.draw_soft(rows.observation)
        q = self.judge(rows, action)
        loss = soft_actor_loss(q, log_prob, alpha)
        self.actor.descend(loss)
        return {"policy_loss": loss.detach(), "entropy": self.temperature_step(log_prob), "temperature": alpha}

    def temperature_step(self, log_prob: Tensor) -> Tensor:
        """One step of a learned temperature, from the log-probabilities ``[B]`` of the policy's actions; returns their entropy, nats."""
        if self.config.temperature is None:
            self.thermostat.descend(
                temperature_loss(self.temperature.log, log_prob, self.target_entropy, form=self.config.temperature_form)
            )
        return -log_prob.detach().mean()

    def judge(self, rows: Transitions, action: Tensor) -> Tensor:
        """The critics' word on the policy's own actions ``[B]``; the gradient flows through the action alone."""
        return least(self.critics.network(rows.observation, action, frozen=True))
