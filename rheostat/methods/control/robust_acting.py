"""Robust On-policy Acting: choose the action that repairs the data most.

Paper: Zhong, Zhang, Corrado, Hanna, Albrecht 2022, arXiv 2111.14552 (the variant of ROS without a step size); here as the data collector
of PPO.

Equation
    a = argmin_a || (N g + grad log pi_theta(a|s)) / (N + 1) ||_1,       g = (1/N) sum_D grad log pi_theta,       with probability rho,
    else a ~ pi

WHO ACTS   with probability ``repair_probability`` the candidate above: all discrete actions, or 9 Gaussian quantiles; otherwise the
           target policy.
KEPT, WORTH, MOVES   as in ppo-buffer.

A warning: the median of a Gaussian has a zero score for everything but the log standard deviation, so with continuous actions a large
rho takes it nearly always and starves the tails; keep rho small there, or use ros or props.

What differs from ros: no behaviour network and no step size; it reacts to every single step, at the price of a per-sample gradient for
every candidate. The sampler's log-probability is that of the mixture for discrete actions and unknown (NaN) for continuous ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rheostat.collect.control.robust_acting import RepairingSampler, ScoreGradients
from rheostat.errors import RheostatError
from rheostat.methods.control.ppo import PPO, PPOConfig
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class RobustActingConfig(PPOConfig):
    """PPO with data collected by Robust On-policy Acting."""

    window: int = 2
    """Batches kept and learned from (b)."""
    repair_probability: float = 0.2
    """rho: share of steps that choose instead of sampling (the authors try 0.02 to 1)."""
    quantiles: int = 9
    """Candidates per state for continuous actions."""


class RobustActing(PPO):
    """See the module docstring."""

    Config: ClassVar[type[PPOConfig]] = RobustActingConfig
    config: RobustActingConfig
    dial_refused: ClassVar[dict[str, str]] = {
        "lag": "who acts is the present policy, corrected by what is kept",
        "replay_share": "it repairs the data of its window, so what is kept is set by window",
        "expert_share": "it repairs the data of its own policy",
    }

    @classmethod
    def derived(cls, config: PPOConfig) -> dict[str, int | str]:
        """PPO's numbers; refuses a probability outside [0, 1]."""
        assert isinstance(config, RobustActingConfig)
        if not 0 <= config.repair_probability <= 1:
            raise RheostatError(f"repair_probability is {config.repair_probability}: it must lie between 0 and 1.")
        return super().derived(config)

    def collect(self) -> Trajectories:
        """WHO ACTS? The target policy, corrected by what is already kept (without the batch that is about to go)."""
        scores = ScoreGradients(self.policy)
        steps = self.config.batch_steps // self.config.num_envs
        kept = self.history.blocks[1:] if self.history.full else self.history.blocks
        running = torch.zeros(sum(value.numel() for value in scores.parameters.values()))
        for block in kept:
            rows = block.transitions()
            running += scores.total(self.normalise(rows.observation), rows.action)
        sampler = RepairingSampler(scores, running, epsilon=self.config.repair_probability, quantiles=self.config.quantiles)

        def repairing(raw: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            observation = self.normalise(raw)
            real = self.collector.environments.upcoming
            return sampler.draw(observation, self.policy.distribution(observation), generator, real)

        return self.collector.collect(repairing, steps, generator=self.streams["actions"], version=self.updates)
