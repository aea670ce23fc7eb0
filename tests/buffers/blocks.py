"""Random blocks of steps that can be told apart, and a replay in plain Python that says what must come of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from rheostat.trajectories import Trajectories, Transitions


def random_block(
    envs: int, steps: int, generator: torch.Generator, *, ends: float = 0.2, holes: float = 0.15, first: int = 1
) -> Trajectories:
    """Steps ``[envs, steps]``; observations, actions, versions and log-probabilities are counted from ``first``."""
    shape = (envs, steps)
    count = torch.arange(first, first + envs * steps, dtype=torch.float32).view(shape)

    def chance(share: float) -> torch.Tensor:
        return torch.rand(shape, generator=generator) < share

    return Trajectories(
        observation=torch.stack([count, -count], -1),
        next_observation=torch.stack([count + 0.5, -count - 0.5], -1),
        action=count.unsqueeze(-1) * 10,
        reward=torch.randn(shape, generator=generator),
        terminated=chance(ends),
        truncated=chance(ends),
        mask=~chance(holes),
        sampler_logp=-count,
        version=count.long(),
        batch_size=list(shape),
    )


def data_set(lengths: list[int], *, first: int = 1, terminated: bool = False) -> tuple[Transitions, torch.Tensor]:
    """Episodes of these lengths one after the other ``[n]``, and where they break."""
    rows = random_block(1, sum(lengths), torch.Generator().manual_seed(0), ends=0.0, holes=0.0, first=first)[0]
    breaks = torch.zeros(sum(lengths), dtype=torch.bool)
    breaks[torch.tensor(lengths).cumsum(0) - 1] = True
    rows.terminated = breaks.clone() if terminated else rows.terminated
    fields = {name: value for name, value in rows.items() if name not in ("mask", "version") and value is not None}
    return Transitions(**fields, batch_size=[len(breaks)]), breaks


@dataclass
class PlainStep:
    """One step and what follows it."""

    observation: float
    action: float
    reward: float
    next_observation: float
    terminated: bool
    truncated: bool
    following: PlainStep | None = None

    @property
    def known(self) -> bool:
        """Whether the action after it is known, or none is needed."""
        return self.terminated or self.following is not None


@dataclass
class PlainReplay:
    """A list of steps with a pointer to the next."""

    capacity: int
    gamma: float
    steps: list[PlainStep] = field(default_factory=list)
    newest: dict[int, PlainStep] = field(default_factory=dict)

    def append(self, rows: Trajectories) -> None:
        for t in range(rows.shape[1]):
            for e in range(rows.shape[0]):
                before = self.newest.pop(e, None)
                if not rows.mask[e, t]:
                    continue
                step = PlainStep(
                    rows.observation[e, t, 0].item(),
                    rows.action[e, t, 0].item(),
                    rows.reward[e, t].item(),
                    rows.next_observation[e, t, 0].item(),
                    bool(rows.terminated[e, t]),
                    bool(rows.truncated[e, t]),
                )
                self.steps.append(step)
                if before is not None:
                    before.following = step
                if not step.terminated and not step.truncated:
                    self.newest[e] = step
        self.steps = self.steps[-self.capacity :]

    def cut(self) -> None:
        for step in self.newest.values():
            step.truncated = True
        self.newest.clear()

    def returned(self, step: PlainStep, n_step: int, sarsa: bool) -> tuple[float, float, float, bool, bool, float]:
        """Sum of rewards, successor, discount, terminated, truncated and next action."""
        total, factor = step.reward, self.gamma
        for _ in range(n_step - 1):
            if step.following is None or (sarsa and not step.following.known):
                break
            step = step.following
            total += factor * step.reward
            factor *= self.gamma
        action = step.action if step.following is None else step.following.action
        return total, step.next_observation, 0.0 if step.terminated else factor, step.terminated, step.truncated, action

    def episodes(self) -> list[list[float]]:
        """Observations of every chain, oldest first."""
        inside = {id(step.following) for step in self.steps}
        result = []
        for step in self.steps:
            if id(step) not in inside:
                chain = [step]
                while chain[-1].following is not None:
                    chain.append(chain[-1].following)
                result.append([each.observation for each in chain])
        return result
