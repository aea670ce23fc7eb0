"""PROPS: proximal robust on-policy sampling.

Paper: Corrado & Hanna 2023, "On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling", arXiv 2311.08290.

Equations (phi the behaviour policy, theta the target, D the window)
    rho_i = pi_phi(a_i|s_i) / pi_theta(a_i|s_i)
    loss  = mean_i max(rho_i, clip(rho_i, 1 - eps, 1 + eps)) + lambda KL,        minimised over phi, starting from phi = theta
    stop  before a step whose minibatch has mean(rho - 1 - log rho) > delta

WHO ACTS   phi, re-derived from theta every ``behaviour_steps`` (m) steps by pushing down the probability of what the window already
           holds, and so up that of under-sampled actions. A row pushed below 1 - eps gives no more gradient.
KEPT       the last ``window`` (b) batches.
WORTH      GAE over the whole ordered window with the current critic.
MOVES      theta by PPO on everything kept, without any correction towards phi: the window is *meant* to look on-policy.

What differs from ros: many clipped, regularised minibatch steps with Adam instead of one plain gradient step, so the behaviour policy
can go further without running away. KL is KL(phi || theta), mean over rows and action dimensions, for Gaussian actions (as the authors'
code has it; the paper appears to write the other direction), and the exact KL(theta || phi) for discrete actions (reconstruction: the
released discrete term is broken).

What the authors' code does differently, and is not reproduced: the first release computes the reference log-probabilities before the PPO
step but copies theta after it; the second re-derives phi inside collection, so the first m steps after a PPO update act from the old
theta; timeouts are terminations (``bootstrap_on_truncation=False`` does that); observations are recovered from clipped normalised values
(raw ones are stored here).
Defaults are the authors' for Hopper, on 8 environments instead of 1; ``preset`` has their other tasks.
Checked against: both code releases, number by number (``tests/vectors``: props).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.collect.control.behaviour import BehaviourPolicy
from rheostat.learner.method import Metrics
from rheostat.methods.control.ppo import PPOConfig
from rheostat.methods.control.ros import ROS, ROSConfig
from rheostat.objectives.behaviour import advantage_weight, behaviour_loss
from rheostat.objectives.kl import kl_estimate
from rheostat.objectives.slopes import behaviour_slope
from rheostat.policies.control.distributions import Distribution, Gaussian
from rheostat.policies.flops import TRAIN
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class PROPSConfig(ROSConfig):
    """The authors' setting for Hopper."""

    learning_rate: float = 1e-3
    """Adam step size of the target policy."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus of the target update."""
    target_kl: float | None = 0.03
    """Stop the target update before a minibatch whose k3 KL exceeds this."""
    kl_stop: Literal["before-step", "after-epoch"] = "before-step"
    """PROPS looks before every step."""
    behaviour_steps: int = 256
    """Environment steps between updates of the behaviour policy (m); must divide batch_steps."""
    behaviour_learning_rate: float = 1e-3
    """Adam step size of the behaviour policy; never annealed."""
    behaviour_epochs: int = 16
    """Passes over the window per behaviour update."""
    behaviour_minibatches: int = 16
    """Minibatches per pass, counted on a full window; their size is the same while it fills."""
    behaviour_clip: float = 0.3
    """eps: a row below 1 - eps has been pushed far enough."""
    behaviour_kl_coefficient: float = 0.3
    """lambda."""
    behaviour_target_kl: float = 0.05
    """delta: stop the behaviour update before a minibatch whose k3 KL exceeds this."""
    advantage_weighted: bool = False
    """Push rows down in proportion to their absolute advantage (an option of the first release, off in its runs)."""


def _preset(
    n: int, m: int, lr: float, behaviour_lr: float, delta: float, coefficient: float, minibatches: int, eps: float
) -> dict[str, Any]:
    return {
        "batch_steps": n,
        "behaviour_steps": m,
        "learning_rate": lr,
        "behaviour_learning_rate": behaviour_lr,
        "behaviour_target_kl": delta,
        "behaviour_kl_coefficient": coefficient,
        "behaviour_minibatches": minibatches,
        "behaviour_clip": eps,
    }


class PROPS(ROS):
    """See the module docstring."""

    Config: ClassVar[type[PPOConfig]] = PROPSConfig
    config: PROPSConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "swimmer": _preset(2048, 1024, 1e-3, 1e-5, 0.03, 0.1, 16, 0.3),
        "hopper": _preset(2048, 256, 1e-3, 1e-3, 0.05, 0.3, 16, 0.3),
        "halfcheetah": _preset(1024, 512, 1e-4, 1e-3, 0.05, 0.3, 16, 0.3),
        "walker2d": _preset(2048, 256, 1e-3, 1e-3, 0.1, 0.3, 32, 0.3),
        "ant": _preset(2048, 256, 1e-4, 1e-3, 0.03, 0.1, 16, 0.05),
        "humanoid": _preset(8192, 256, 1e-4, 1e-4, 0.1, 0.1, 32, 0.3),
        "discrete": _preset(1024, 128, 1e-3, 1e-3, 0.03, 0.1, 8, 0.3) | {"window": 1},
        "discrete-v2": _preset(2048, 16, 1e-3, 1e-3, 0.01, 0.0, 4, 0.3) | {"window": 1},
    }

    def build_behaviour(self) -> BehaviourPolicy:
        """Moved by Adam, whose moments outlive the restarts."""
        return BehaviourPolicy(self.policy, self.config.behaviour_learning_rate)

    @property
    def credit_due(self) -> bool:
        """Advantages are needed in between too when rows are weighted by them."""
        return self.due or self.config.advantage_weighted

    def repair(self, rows: Transitions) -> Metrics:
        """Push down what the window holds, in minibatches, until done or stopped."""
        config = self.config
        observation = self.normalise(rows.observation)
        target = self.network.distribution(observation).detach()
        target_logp = target.log_prob(rows.action)
        weight = advantage_weight(rows.advantage) if config.advantage_weighted else None
        seen: list[tuple[Tensor, Tensor]] = []
        for index in self.behaviour_minibatches(len(rows)):
            now = self.behaviour.evaluate(observation[index])
            with torch.no_grad():
                log_prob, score = now.distribution.log_prob_and_slope(rows.action[index])
                reference_logp = target_logp[index]
                if kl_estimate(reference_logp, log_prob).mean() > config.behaviour_target_kl:
                    break
                push = behaviour_slope(
                    log_prob, reference_logp, clip=config.behaviour_clip, weight=None if weight is None else weight[index]
                )
                slope = score.mul_(push.unsqueeze(-1))
                slope.add_(self.kl_slope(now.distribution, target[index]), alpha=config.behaviour_kl_coefficient / len(index))
                self.behaviour.descend(now, slope, max_grad_norm=config.max_grad_norm)
            seen.append((log_prob, reference_logp))
        self.flops += TRAIN * self.weights * sum(len(log_prob) for log_prob, _ in seen)
        with torch.no_grad():
            moved = self.behaviour.network.distribution(observation).log_prob(rows.action)
        metrics = {"behaviour_kl": kl_estimate(target_logp, moved).mean().item(), "behaviour_gradient_steps": len(seen)}
        if not seen:
            return metrics | {"behaviour_limited_share": 0.0}
        log_prob, reference_logp = map(torch.cat, zip(*seen, strict=True))
        loss = behaviour_loss(log_prob, reference_logp, clip=config.behaviour_clip, kl_coef=0.0)
        return metrics | {"behaviour_limited_share": loss.limited_share.item()}

    def behaviour_minibatches(self, count: int) -> Iterator[Tensor]:
        """Indices of rows: every pass in a new random order, in minibatches as large as on a full window."""
        config = self.config
        size = max(1, (config.window * config.batch_steps - config.behaviour_steps) // config.behaviour_minibatches)
        for _ in range(config.behaviour_epochs):
            yield from torch.randperm(count, generator=self.streams["behaviour"]).split(size)

    def kl_slope(self, behaviour: Distribution, target: Distribution) -> Tensor:
        """Derivative of every row's KL term with respect to the parameters of ``behaviour``."""
        if isinstance(behaviour, Gaussian):
            return behaviour.kl_slope(target) / behaviour.mean.shape[-1]
        return behaviour.reverse_kl_slope(target)
