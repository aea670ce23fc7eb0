"""A network of your own: any module with ``distribution`` and ``value``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import rheostat
from rheostat.policies.control.distributions import Categorical
from rheostat.training.run import Run


class Network(nn.Module):
    """One shared hidden layer for CartPole: four numbers in, two actions out."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.SiLU())
        self.actor, self.critic = nn.Linear(width, 2), nn.Linear(width, 1)

    def distribution(self, observation: Tensor) -> Categorical:
        """For observations ``[N, 4]``, normalised."""
        return Categorical(self.actor(self.body(observation)))

    def value(self, observation: Tensor) -> Tensor:
        """``[N]``."""
        return self.critic(self.body(observation)).squeeze(-1)


def main(directory: Path, steps: int = 8192) -> Run:
    torch.manual_seed(0)
    return rheostat.train("ppo", "CartPole-v1", policy=Network(), directory=directory, steps=steps, batch_steps=1024)


if __name__ == "__main__":
    run = main(Path("runs/network"))
    print(run.summary["evaluation_return"])
