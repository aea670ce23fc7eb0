"""ROS: robust on-policy sampling.

Paper: Zhong, Zhang, Corrado, Hanna, Albrecht 2022, "Robust On-Policy Sampling for Data-Efficient Policy Evaluation", arXiv 2111.14552;
here as the data collector of PPO, the way PROPS uses its parent as a baseline.

Equation
    phi = theta - alpha (1/N) sum_(s,a) in D grad log pi_theta(a|s)

WHO ACTS   a behaviour policy phi one gradient step away from the target theta, re-derived every ``behaviour_steps`` steps: the step
           lowers the probability of what is already in the window, and so raises that of under-sampled actions.
KEPT, WORTH, MOVES   as in ppo-buffer.

What differs from ppo: who acts. The sign is the paper's (the first PROPS code release moves the other way: see
``objectives.behaviour.ros_loss``). The step size depends on the parameterisation: the authors use 1e3 for tabular softmax policies, 10
for CartPole, 0.1 for continuous CartPole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.collect.control.behaviour import BehaviourPolicy
from rheostat.errors import RheostatError
from rheostat.learner.method import Metrics
from rheostat.methods.control.ppo import PPO, MakeEnvironments, PPOConfig
from rheostat.objectives.slopes import ros_slope
from rheostat.policies.control.actor_critic import ControlPolicy
from rheostat.policies.control.distributions import Distribution
from rheostat.policies.flops import TRAIN
from rheostat.streams import Streams
from rheostat.trajectories import Trajectories, Transitions


@dataclass(frozen=True)
class ROSConfig(PPOConfig):
    """PPO with data collected by ROS."""

    window: int = 2
    """Batches kept and learned from (b)."""
    behaviour_steps: int = 8
    """Environment steps between updates of the behaviour policy (m); must divide batch_steps."""
    behaviour_learning_rate: float = 0.1
    """Step size alpha of the behaviour policy."""


class ROS(PPO):
    """See the module docstring."""

    Config: ClassVar[type[PPOConfig]] = ROSConfig
    config: ROSConfig
    dial_refused: ClassVar[dict[str, str]] = {
        "lag": "who acts is its own behaviour policy, derived from the present one",
        "replay_share": "it repairs the data of its window, so what is kept is set by window",
        "expert_share": "it repairs the data of its own policy",
    }

    def __init__(
        self, config: ROSConfig, make: MakeEnvironments, streams: Streams, *, total_steps: int, policy: ControlPolicy | None = None
    ) -> None:
        super().__init__(config, make, streams, total_steps=total_steps, policy=policy)
        self.behaviour = self.build_behaviour()

    def build_behaviour(self) -> BehaviourPolicy:
        """Moved by plain gradient descent."""
        return BehaviourPolicy(self.policy)

    @classmethod
    def block_steps(cls, config: PPOConfig) -> int:
        """The behaviour policy is renewed after every block of m steps."""
        assert isinstance(config, ROSConfig)
        m = config.behaviour_steps
        if m < 1 or config.batch_steps % m:
            raise RheostatError(
                f"behaviour_steps {m} must divide batch_steps {config.batch_steps}: the policy moves after a whole number of blocks."
            )
        return m

    def act(self, observation: Tensor) -> Distribution:
        """Who acts: the behaviour policy."""
        return self.behaviour.network.distribution(self.normalise(observation))

    def improve(self, batch: Trajectories) -> Metrics:
        """Move the target policy when a batch is complete, then the behaviour policy, always from the *new* target."""
        metrics = super().improve(batch)
        self.behaviour.restart_from(self.parameters)
        rows = self.rows_to_repair(batch)
        return metrics | self.repair(rows) if len(rows) else metrics

    def rows_to_repair(self, batch: Trajectories) -> Transitions:
        """What will still be kept when the next block has come: once the window is full, all but its oldest block."""
        first = self.block_steps(self.config) // self.config.num_envs if self.history.full else 0
        return batch[:, first:].transitions()

    def repair(self, rows: Transitions) -> Metrics:
        """One gradient step that makes the window's actions less likely."""
        observation = self.normalise(rows.observation)
        self.flops += TRAIN * self.weights * len(rows)
        now = self.behaviour.evaluate(observation)
        with torch.no_grad():
            log_prob, score = now.distribution.log_prob_and_slope(rows.action)
            slope = score.mul_(ros_slope(log_prob, log_prob).unsqueeze(-1))
            self.behaviour.descend(now, slope, max_grad_norm=self.config.max_grad_norm, step_size=self.config.behaviour_learning_rate)
            moved = self.behaviour.network.distribution(observation).log_prob(rows.action)
        return {"behaviour_kl": (log_prob - moved).mean().item()}

    def state_dict(self) -> dict[str, Any]:
        """PPO's state and the behaviour policy."""
        return super().state_dict() | {"behaviour": self.behaviour.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.behaviour.load_state_dict(state["behaviour"])
