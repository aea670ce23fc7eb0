"""Whole trials for measuring what a policy learns in context: the return of the first episode of a task, of the second, and so on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rheostat.tasks.control.environments import Environments, Step

Act = Callable[[Tensor, Tensor], Tensor]
"""Raw observations ``[E, ...]`` and which rows act ``[E]`` to raw actions ``[E, ...]``."""


def ended(step: Step) -> Tensor:
    """Bool ``[E]``: the step was the last of an episode; of one inside a trial, where the environment has those."""
    inside = step.info.get("episode_ended")
    over = step.terminated | step.truncated if inside is None else torch.as_tensor(inside)
    return over & step.valid


def returns_by_episode(act: Act, environments: Environments, steps: int, after: Callable[[Step], None] | None = None) -> Tensor:
    """Returns of the episodes that every trial finishes, ``[trials, episodes]``, float64, in the order in which they happen.

    Args:
        act: chooses actions.
        environments: freshly seeded, one trial each; used from a reset.
        steps: of every trial.
        after: called after every step.

    Where some trial finishes no episode, the first one of each counts as it is when the trial ends.
    """
    rows = environments.num_envs
    found: list[list[float]] = [[] for _ in range(rows)]
    running = torch.zeros(rows, dtype=torch.float64)
    observation = environments.reset()
    with torch.no_grad():
        for _ in range(steps):
            step = environments.step(act(observation, environments.upcoming))
            running += step.reward.double() * step.valid
            for row in ended(step).nonzero().flatten().tolist():
                found[row].append(running[row].item())
                running[row] = 0.0
            observation = step.observation
            if after is not None:
                after(step)
    whole = min(map(len, found))
    if not whole:
        return torch.tensor([[each[0] if each else cut] for each, cut in zip(found, running.tolist(), strict=True)], dtype=torch.float64)
    return torch.tensor([each[:whole] for each in found], dtype=torch.float64)
