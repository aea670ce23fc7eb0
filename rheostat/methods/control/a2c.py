"""A2C: synchronous advantage actor-critic.

Paper: Mnih et al. 2016, arXiv 1602.01783, in its synchronous form (OpenAI Baselines, Stable-Baselines3).

Equation
    loss = -mean(A log pi(a|s)) + c_V mean (R - V)^2 - c_H entropy,      one gradient step per rollout

What differs from ppo: no ratio and no clipping (one step on fresh data needs none), no advantage normalisation, lambda 1, the value loss
without the half, and RMSprop (alpha 0.99, eps 1e-5) on the whole rollout at once.
Checked against: Stable-Baselines3 2.9.2 (``tests/vectors``: baselines-control, case a2c_sb3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.methods.control.ppo import PPO, PPOConfig, Step
from rheostat.objectives.limits import DetachedClip
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.slopes import policy_slope, value_slope
from rheostat.objectives.value import value_loss


@dataclass(frozen=True)
class A2CConfig(PPOConfig):
    """Stable-Baselines3's defaults: five steps in each of eight environments per update."""

    batch_steps: int = 40
    """Environment steps per update, over all environments."""
    epochs: int = 1
    """One pass: a second would be off-policy without a correction."""
    minibatches: int = 1
    """One minibatch: the whole rollout."""
    learning_rate: float = 7e-4
    """RMSprop step size."""
    anneal: bool = False
    """Constant learning rate."""
    lam: float = 1.0
    """Full n-step returns."""
    normalise_advantage: bool = False
    """Advantages as they are."""


class A2C(PPO):
    """See the module docstring."""

    Config: ClassVar[type[PPOConfig]] = A2CConfig

    @classmethod
    def derived(cls, config: PPOConfig) -> dict[str, int | str]:
        """PPO's numbers; there is no ratio to choose for."""
        for name in ("ratio_to", "limit"):
            if getattr(config, name) != getattr(PPOConfig, name):
                raise RheostatError(f"a2c has no ratio, so {name} does nothing: use ppo, or correct with sampler_correction.")
        return super().derived(config)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """RMSprop as Stable-Baselines3 configures it."""
        return torch.optim.RMSprop([self.parameters.vector], lr=self.config.learning_rate, alpha=0.99, eps=1e-5)

    def losses(self, step: Step) -> tuple[PolicyLoss, Tensor]:
        """The plain policy gradient: the log-probability itself is its own denominator, so the ratio is 1."""
        policy = policy_gradient(step.log_prob, step.worth.advantage, denominator_logp=None, limit=DetachedClip())
        return policy, value_loss(step.value, step.worth.target, scale=1.0)

    def slopes(self, step: Step) -> tuple[Tensor, Tensor]:
        """Derivatives of ``losses``."""
        policy = policy_slope(step.log_prob, step.worth.advantage, denominator_logp=None, limit=DetachedClip())
        return policy, value_slope(step.value, step.worth.target, scale=1.0)
