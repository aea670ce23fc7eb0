"""Stepping a policy through vector environments."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rheostat.tasks.control.environments import Environments, Step
from rheostat.trajectories import Trajectories

Draw = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Raw observations ``[E, ...]`` and a generator to actions ``[E, ...]`` and their log-probabilities ``[E]``."""

EPISODES_KEPT = 100


class Collector:
    """Acts in ``environments`` and yields ``Trajectories`` [environment, step] that continue where the last call stopped.

    The next observation is always the true successor (the final observation where an episode ended); the fake row that next-step autoreset
    inserts after an episode is masked. Raw observations, rewards and actions are stored; nothing is normalised or clipped here.
    """

    def __init__(self, environments: Environments) -> None:
        self.environments = environments
        self._taken: list[tuple[Tensor, ...]] = []
        self._observation = environments.reset() if environments.opened else None  # else at the first step, unless a state is loaded
        rows = environments.num_envs
        self.running_return = torch.zeros(rows, dtype=torch.float64)
        self.running_length = torch.zeros(rows, dtype=torch.int64)
        self.returns: deque[float] = deque(maxlen=EPISODES_KEPT)
        self.lengths: deque[int] = deque(maxlen=EPISODES_KEPT)
        self.episodes = 0
        self.steps = 0

    @property
    def observation(self) -> Tensor:
        """The next observation of the policy, ``[E, ...]``."""
        if self._observation is None:
            self._observation = self.environments.reset()
        return self._observation

    @observation.setter
    def observation(self, value: Tensor) -> None:
        self._observation = value

    def collect(
        self, draw: Draw, steps: int, *, generator: torch.Generator, version: int, after: Callable[[Step], None] | None = None
    ) -> Trajectories:
        """``steps`` vector steps with actions from ``draw``: raw observations and a generator to actions and their log-probabilities.

        Args:
            draw: samples the actions.
            steps: how many.
            generator: of the actions.
            version: number of the policy that acts.
            after: called after every step.

        Returns:
            Trajectories ``[num_envs, steps]`` with ``sampler_logp`` under exactly the distribution that sampled.
        """
        with torch.no_grad():
            for _ in range(steps):
                action, log_prob = draw(self.observation, generator)
                step = self.environments.step(action)
                self.take(action, log_prob, step)
                if after is not None:
                    after(step)
        return self.block(version)

    def take(self, action: Tensor, log_prob: Tensor, step: Step) -> None:
        """Record a step of all environments.

        Args:
            action: raw, ``[E, ...]``.
            log_prob: ``[E]``.
            step: its result.
        """
        facts = (self.observation, step.next_observation, action, log_prob, step.reward, step.terminated, step.truncated, step.valid)
        self._taken.append(facts)
        self.observation = step.observation

    def block(self, version: int) -> Trajectories:
        """The steps recorded since the last block, ``[num_envs, steps]``, sampled by the policy of this number."""
        observation, following, action, log_prob, reward, terminated, truncated, valid = (
            torch.stack(column, 1) for column in zip(*self._taken, strict=True)
        )
        self._taken = []
        shape = valid.shape
        block = Trajectories(
            observation=observation,
            next_observation=following,
            action=action,
            sampler_logp=log_prob,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            mask=valid,
            version=torch.full(shape, version, dtype=torch.int64),
            batch_size=list(shape),
        )
        self._count(block)
        return block

    def _count(self, block: Trajectories) -> None:
        """Record returns and lengths of the episodes that ended in this block, in order of time."""
        self.steps += block.count()
        rewards = block.reward.double().where(block.mask, torch.zeros((), dtype=torch.float64))
        done = (block.terminated | block.truncated) & block.mask
        if not done.any():
            self.running_return += rewards.sum(1)
            self.running_length += block.mask.sum(1)
            return
        for t in range(block.shape[1]):
            self.running_return += rewards[:, t]
            self.running_length += block.mask[:, t]
            for row in done[:, t].nonzero().flatten().tolist():
                self.returns.append(self.running_return[row].item())
                self.lengths.append(int(self.running_length[row]))
                self.running_return[row] = 0.0
                self.running_length[row] = 0
                self.episodes += 1

    def restart(self, seed: int) -> None:
        """Begin fresh episodes in a freshly seeded pool; unfinished episodes are not counted."""
        self.observation = self.environments.restart(seed)
        self.running_return.zero_()
        self.running_length.zero_()

    def metrics(self) -> dict[str, float]:
        """Mean return and length of the last episodes that ended (at most 100); absent before the first one."""
        result: dict[str, float] = {"episodes": self.episodes}
        if self.returns:
            result["episode_return"] = sum(self.returns) / len(self.returns)
            result["episode_length"] = sum(self.lengths) / len(self.lengths)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Environments, current observation and episode statistics."""
        return {
            "environments": self.environments.state_dict(),
            "observation": self.observation,
            "running_return": self.running_return,
            "running_length": self.running_length,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "episodes": self.episodes,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        self.environments.load_state_dict(state["environments"])
        self.observation = state["observation"]
        self.running_return = state["running_return"]
        self.running_length = state["running_length"]
        self.returns = deque(state["returns"], maxlen=EPISODES_KEPT)
        self.lengths = deque(state["lengths"], maxlen=EPISODES_KEPT)
        self.episodes = state["episodes"]
        self.steps = state["steps"]


def no_steps(environments: Environments) -> Trajectories:
    """The empty batch of an iteration that collects no data: ``[num_envs, 0]``."""
    rows = environments.num_envs
    nothing, no = torch.zeros(rows, 0), torch.zeros(rows, 0, dtype=torch.bool)
    return Trajectories(action=nothing, mask=no, reward=nothing, terminated=no, truncated=no, sampler_logp=nothing, batch_size=[rows, 0])
