"""Stepping a policy through vector environments."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rheostat.tasks.control.environments import Environments
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
        self._observation = environments.reset() if environments.opened else None  # else when somebody acts, unless a state is loaded
        rows = environments.num_envs
        self.running_return = torch.zeros(rows, dtype=torch.float64)
        self.running_length = torch.zeros(rows, dtype=torch.int64)
        self.returns: deque[float] = deque(maxlen=EPISODES_KEPT)
        self.lengths: deque[int] = deque(maxlen=EPISODES_KEPT)
        self.episodes = 0
        self.steps = 0

    @property
    def observation(self) -> Tensor:
        """What the policy sees next, ``[E, ...]``."""
        if self._observation is None:
            self._observation = self.environments.reset()
        return self._observation

    @observation.setter
    def observation(self, value: Tensor) -> None:
        self._observation = value

    def collect(self, draw: Draw, steps: int, *, generator: torch.Generator, version: int) -> Trajectories:
        """``steps`` vector steps with actions from ``draw``: raw observations and a generator to actions and their log-probabilities.

        Returns:
            Trajectories ``[num_envs, steps]`` with ``sampler_logp`` under exactly the distribution that sampled.
        """
        observations, next_observations, actions, log_probs = [], [], [], []
        rewards, terminated, truncated, valid = [], [], [], []
        with torch.no_grad():
            for _ in range(steps):
                action, log_prob = draw(self.observation, generator)
                step = self.environments.step(action)
                observations.append(self.observation)
                next_observations.append(step.next_observation)
                actions.append(action)
                log_probs.append(log_prob)
                rewards.append(step.reward)
                terminated.append(step.terminated)
                truncated.append(step.truncated)
                valid.append(step.valid)
                self.observation = step.observation
        shape = (self.environments.num_envs, steps)
        block = Trajectories(
            observation=torch.stack(observations, 1),
            next_observation=torch.stack(next_observations, 1),
            action=torch.stack(actions, 1),
            sampler_logp=torch.stack(log_probs, 1),
            reward=torch.stack(rewards, 1),
            terminated=torch.stack(terminated, 1),
            truncated=torch.stack(truncated, 1),
            mask=torch.stack(valid, 1),
            version=torch.full(shape, version, dtype=torch.int64),
            batch_size=list(shape),
        )
        self._count(block)
        return block

    def _count(self, block: Trajectories) -> None:
        """Book returns and lengths of the episodes that ended in this block, in order of time."""
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
        """Begin fresh episodes in a freshly seeded pool; episodes under way are not counted."""
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
        """Environments, current observation and episode books."""
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
    """What a turn yields in which nobody acts: ``[num_envs, 0]``."""
    rows = environments.num_envs
    nothing, no = torch.zeros(rows, 0), torch.zeros(rows, 0, dtype=torch.bool)
    return Trajectories(action=nothing, mask=no, reward=nothing, terminated=no, truncated=no, sampler_logp=nothing, batch_size=[rows, 0])
