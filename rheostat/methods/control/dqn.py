"""DQN: a network of action values, a slow copy for its targets, and mostly greedy actions.

Paper: Mnih et al. 2015, Nature 518 (arXiv 1312.5602); double DQN: van Hasselt et al. 2016, arXiv 1509.06461.

Equations (Qbar: the slow copy; a* = argmax_b Qbar(s', b), or argmax_b Q(s', b) in double DQN)
    y     = r + gamma (1 - terminated) Qbar(s', a*)
    loss  = mean h(Q(s, a) - y),      h(d) = d^2 / 2 where |d| < huber, else huber (|d| - huber / 2)

WHO ACTS   the greedy policy, or with probability epsilon a uniform action; epsilon falls linearly over a share of the budget.
KEPT       everything; drawn uniformly, or by the size of the error (``priority``, Schaul et al. 2016), with n-step returns (``n_step``).
WORTH      the target above; the slow copy takes over the network every ``target_every`` gradient steps (or by ``tau`` in each).
MOVES      one gradient step per ten environment steps.

The defaults are CleanRL's for vectors, and the preset atari is its setting for images, except that 100,000 transitions are kept, not a
million: each takes 56 kB. The slow copy's intervals are gradient steps here and environment steps in CleanRL, which squares the error
(``huber`` none), where the paper clips it to [-1, 1], which is Huber's loss. CleanRL acts by the schedule of epsilon from the first step;
here ``start_steps`` are uniform. The paper's RMSProp is Adam in both. Prioritised batches are fully corrected (the exponent beta is 1
throughout).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.off_policy import OffPolicy, OffPolicyConfig
from rheostat.objectives.schedules import PeakSchedule
from rheostat.objectives.temporal_difference import absolute_td_error, critic_loss, greedy_value, td_target
from rheostat.policies.control.discrete_q import ChoiceScores, scores_of
from rheostat.policies.control.distributions import Categorical, epsilon_greedy
from rheostat.policies.parameters import Target, Trained
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class DQNConfig(OffPolicyConfig):
    """CleanRL's setting for vectors."""

    batch_size: int = 128
    """Transitions per gradient step."""
    tau: float = 1.0
    """Share of the network in the slow copy when it follows; 1 copies it (Mnih et al.)."""
    learning_rate: float = 2.5e-4
    """Adam step size."""
    hidden: tuple[int, ...] = (120, 84)
    """Hidden layers for vectors; images have three convolutions and a layer of 512 (Mnih et al.)."""
    replay_capacity: int = 10_000
    """Transitions kept; the oldest go first."""
    start_steps: int = 10_000
    """Environment steps with uniform actions and without learning."""
    update_to_data: float = 0.1
    """Gradient steps per environment step."""
    double: bool = False
    """Double DQN (van Hasselt et al. 2016): the network chooses the target's action, the slow copy judges it."""
    huber: float | None = 1.0
    """Error above which the loss is linear; None squares."""
    target_every: int = 50
    """Gradient steps after which the slow copy follows."""
    exploration_start: float = 1.0
    """First epsilon."""
    exploration_end: float = 0.05
    """Last epsilon."""
    exploration_share: float = 0.5
    """Share of the budget over which epsilon falls."""


class DQN(OffPolicy):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = DQNConfig
    config: DQNConfig
    discrete: ClassVar[bool | None] = True
    images: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "atari": {
            "batch_size": 32,
            "learning_rate": 1e-4,
            "replay_capacity": 100_000,
            "start_steps": 80_000,
            "update_to_data": 0.25,
            "target_every": 250,
            "exploration_end": 0.01,
            "exploration_share": 0.1,
        }
    }

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """Numbers that follow from the configuration.

        Raises:
            RheostatError: an epsilon, share or interval outside its range.
        """
        assert isinstance(config, DQNConfig)
        for name in ("exploration_start", "exploration_end", "exploration_share"):
            if not 0 <= getattr(config, name) <= 1:
                raise RheostatError(f"{name} is {getattr(config, name)}: it lies between 0 and 1.")
        if config.target_every < 1:
            raise RheostatError(f"target_every is {config.target_every}: the slow copy follows every so many steps, at least 1.")
        if config.huber is not None and not config.huber > 0:
            raise RheostatError(f"huber is {config.huber}: it is an error above 0, or None to square.")
        return super().derived(config)

    def build(self) -> None:
        """One network of action values and its slow copy."""
        config, world = self.config, self.collector.environments
        self.policy = ChoiceScores(world.observation_space, self.choices, hidden=config.hidden, generator=self.streams["networks"])
        self.critic = Trained(self.policy, config.learning_rate)
        self.slow = Target(self.critic)
        length = math.ceil(config.exploration_share * self.total_steps)
        self.schedule = PeakSchedule(config.exploration_start, config.exploration_end, decay=length, decay_form="linear")

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return {"critic": self.critic, "slow": self.slow}

    @property
    def exploration(self) -> float:
        """epsilon now."""
        return self.schedule.at(self.collector.steps)

    def distribution(self, observation: Tensor) -> Categorical:
        """The greedy policy."""
        return epsilon_greedy(self.policy(observation), 0.0)

    def exploring(self, observation: Tensor) -> Categorical:
        """The greedy policy, or a uniform action."""
        return epsilon_greedy(self.policy(observation), self.exploration)

    def value(self, observation: Tensor) -> Tensor:
        """The largest action value, ``[N]``."""
        return greedy_value(self.policy(self.normalise(observation)))

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """The network, and now and then its slow copy."""
        config = self.config
        target = self.target(rows)
        q = scores_of(self.policy(rows.observation), rows.action).unsqueeze(0)
        loss = critic_loss(q, target, huber=config.huber, weight=rows.weight)
        self.critic.descend(loss)
        self.rank(rows, absolute_td_error(q, target))
        if (self.updates + 1) % config.target_every == 0:
            self.slow.follow(config.tau)
        return {"critic_loss": loss.detach(), "q": q.detach().mean(), "target": target.mean(), "exploration": self.exploration}

    def target(self, rows: Transitions) -> Tensor:
        """What the network regresses on, ``[B]``."""
        with torch.no_grad():
            chooser = self.policy(rows.next_observation) if self.config.double else None
            return td_target(rows.reward, greedy_value(self.slow.network(rows.next_observation), chooser), rows.discount)
