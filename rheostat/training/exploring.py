"""Data without rewards: PPO that climbs the novelty of what it meets, by random network distillation.

    bonus = |f(s') - g(s')|^2 / (2 times its running deviation),   f: a random network, g: one that learns to predict it

Burda et al. 2019, arXiv 1810.12894. Observations are standardised by all that were met, and clipped at 5. What PPO learns from is the bonus
alone; what is recorded are the environment's own rewards. Ours: one stream of returns, in which episodes end as the environment's do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu

from rheostat.collect.control.normalise import RunningStatistics
from rheostat.errors import RheostatError
from rheostat.policies.control.critics import Stack
from rheostat.policies.parameters import OptimizedNetwork
from rheostat.streams import Streams
from rheostat.training.progress import Progress
from rheostat.training.teachers import EnvironmentSpec, TeacherRecipe, learner_of
from rheostat.trajectories import Trajectories

FEATURES, HIDDEN, LIMIT = 32, (64, 64), 5.0
"""Numbers of the random network, its hidden layers, and the largest standardised observation."""
BATCH = 256
"""Rows of a step of the network that predicts."""


class Novelty:
    """How badly a random network's answers are predicted.

    Args:
        observations: numbers of an observation.
        generator: draws both networks, and the order of rows.
        learning_rate: Adam step size of the one that learns.
    """

    def __init__(self, observations: int, generator: torch.Generator, learning_rate: float = 1e-3) -> None:
        self.generator = generator
        self.target = Stack(1, observations, HIDDEN, FEATURES, activation=relu, generator=generator).requires_grad_(False)
        self.learned = OptimizedNetwork(Stack(1, observations, HIDDEN, FEATURES, activation=relu, generator=generator), learning_rate)
        self.seen, self.size = RunningStatistics((observations,)), RunningStatistics()

    def __call__(self, observation: Tensor) -> Tensor:
        """The bonus of every row, ``[N]``, after which the networks know these rows."""
        self.seen.update(observation)
        x = self.seen.normalise(observation).float().clamp(-LIMIT, LIMIT)
        with torch.no_grad():
            bonus = self._error(x)
        self.size.update(bonus)
        for rows in torch.randperm(len(x), generator=self.generator).split(BATCH):
            self.learned.step(self._error(x[rows]).mean())
        return bonus / (float(self.size.variance) ** 0.5 + 1e-8)

    def _error(self, x: Tensor) -> Tensor:
        return 0.5 * (self.learned.network(x)[0] - self.target(x)[0]).square().sum(-1)


def explored(spec: EnvironmentSpec, steps: int, seed: int, num_envs: int, progress: Progress) -> list[Trajectories]:
    """At least so many steps of PPO on novelty, ``[E, T]`` each, with the environment's rewards.

    Args:
        spec: the task.
        steps: in all environments together.
        seed: of everything.
        num_envs: E.
        progress: display.

    Raises:
        RheostatError: observations that are no vectors of numbers.
    """
    batch = num_envs * max(1, min(128, -(-steps // num_envs)))
    options: dict[str, Any] = {"num_envs": num_envs, "batch_steps": batch, "minibatches": 1 if batch < 256 else 4}
    learner = learner_of(spec, seed, TeacherRecipe(steps, options))
    context = learner.context
    try:
        shape = context.observation_space.shape
        if len(shape) != 1:
            raise RheostatError(f"Novelty is measured of vectors of numbers, and {spec.task} shows images: use the kind random.")
        novelty = Novelty(shape[0], Streams(seed)["novelty"])
        progress.start(0, steps, "environment steps")
        blocks: list[Trajectories] = []
        while learner.steps < steps:
            fresh = learner.collect()
            blocks.append(fresh.rows.clone())
            rows = fresh.rows
            rows.reward = novelty(rows.next_observation.flatten(0, 1)).view(rows.shape)
            progress.update(learner.steps, learner.improve(learner.credit(learner.retain(fresh))))
        return blocks
    finally:
        progress.stop()
        context.environments.close()
