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
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.off_policy import OffPolicy, OffPolicyConfig
from rheostat.objectives.actor import deterministic_actor_loss, smoothed_action
from rheostat.objectives.temporal_difference import absolute_td_error, critic_loss, least, td_target
from rheostat.policies.control.actors import DeterministicActor
from rheostat.policies.control.critics import EnsembleQ
from rheostat.policies.control.squashed import Certain, UnitPolicy
from rheostat.policies.parameters import Target, Trained
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class TD3Config(OffPolicyConfig):
    """The authors' setting."""

    start_steps: int = 25_000
    """Environment steps with uniform actions and without learning, in methods that do not begin with a data set."""
    exploration_noise: float = 0.1
    """Standard deviation of the noise on the actions that are taken, in unit actions."""
    target_noise: float = 0.2
    """Standard deviation of the noise on the actions of the target, in unit actions."""
    noise_clip: float = 0.5
    """Largest size of the target's noise, in unit actions."""
    policy_delay: int = 2
    """Steps of the critics per step of the policy and of the slow copies."""
    critic_learning_rate: float | None = None
    """Adam step size of the critics; None takes learning_rate."""


class TD3(OffPolicy):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = TD3Config
    config: TD3Config

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """Numbers that follow from the configuration.

        Raises:
            RheostatError: a noise below 0, or a policy that never moves.
        """
        assert isinstance(config, TD3Config)
        for name in ("exploration_noise", "target_noise", "noise_clip"):
            if getattr(config, name) < 0:
                raise RheostatError(f"{name} is {getattr(config, name)}: it must be at least 0.")
        if config.policy_delay < 1:
            raise RheostatError(f"policy_delay is {config.policy_delay}: the policy moves every so many steps, so it must be at least 1.")
        return super().derived(config)

    def build(self) -> None:
        """A deterministic actor and two critics, all with slow copies."""
        config = self.config
        seen, acted = self.sizes
        draw = self.streams["networks"]
        self.policy = DeterministicActor(seen, acted, hidden=config.hidden, generator=draw)
        self.actor = Trained(self.policy, config.learning_rate)
        self.actor_target = Target(self.actor)
        self.critics = Trained(
            EnsembleQ(seen, acted, hidden=config.hidden, generator=draw), config.critic_learning_rate or config.learning_rate
        )
        self.targets = Target(self.critics)

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return {"actor": self.actor, "actor_target": self.actor_target, "critics": self.critics, "targets": self.targets}

    def distribution(self, observation: Tensor) -> Certain:
        """The deterministic unit action."""
        return self.policy.distribution(observation)

    def exploring(self, observation: Tensor) -> UnitPolicy:
        """The deterministic action with noise."""
        return Certain(self.policy(observation), self.config.exploration_noise)

    def value(self, observation: Tensor) -> Tensor:
        """The smaller critic at the policy's action, ``[N]``."""
        seen = self.normalise(observation)
        return least(self.critics.network(seen, self.policy(seen)))

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """Critics; every ``policy_delay``-th time the policy and the slow copies too."""
        found = self.critic_step(rows)
        if (self.updates + 1) % self.config.policy_delay == 0:
            found |= self.actor_step(rows)
            self.actor_target.follow(self.config.tau)
            self.targets.follow(self.config.tau)
        return found

    def target(self, rows: Transitions) -> Tensor:
        """What the critics regress on, ``[B]``."""
        config = self.config
        with torch.no_grad():
            action = self.actor_target.network(rows.next_observation)
            noise = torch.randn(action.shape, generator=self.streams["updates"])
            action = smoothed_action(action, noise, scale=config.target_noise, clip=config.noise_clip)
            return td_target(rows.reward, least(self.targets.network(rows.next_observation, action)), rows.discount)

    def critic_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of both critics; tells a prioritised replay how wrong they were."""
        target = self.target(rows)
        q = self.critics.network(rows.observation, rows.action)
        loss = critic_loss(q, target, weight=rows.weight)
        self.critics.descend(loss)
        self.rank(rows, absolute_td_error(q, target))
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target": target.mean()}

    def actor_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step of the policy."""
        loss = deterministic_actor_loss(self.judge(rows.observation, self.policy(rows.observation)))
        self.actor.descend(loss)
        return {"policy_loss": loss.detach()}

    def judge(self, observation: Tensor, action: Tensor) -> Tensor:
        """The first critic's word on the policy's actions ``[B]``; the gradient flows through the action alone."""
        return self.critics.network(observation, action, frozen=True)[0]
