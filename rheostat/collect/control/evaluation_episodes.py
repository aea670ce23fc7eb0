"""Whole episodes for measuring a policy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rheostat.tasks.control.environments import Environments

STEP_LIMIT = 100_000
Forget = Callable[[Tensor], None]
"""Of bool ``[E]``."""


def run_episodes(
    act: Callable[[Tensor], Tensor], environments: Environments, episodes: int, forget: Forget | None = None
) -> tuple[list[float], list[int]]:
    """Returns and lengths of exactly ``episodes`` episodes.

    Every environment contributes the same number of episodes (up to rounding), whatever their length: counting the first episodes to
    *finish* would over-represent short ones. Episode k of Gymnasium environments is seeded with ``seed + k``, so that the result does not
    depend on how many environments take part. An environment without an end is cut after 100,000 vector steps, and the unfinished episodes
    count as they are.

    Args:
        act: raw observations ``[E, ...]`` to raw actions ``[E, ...]``.
        environments: freshly seeded; used from a reset.
        episodes: how many, at least 1.
        forget: of a recurrent policy; called after every step with the environments where a new episode begins, bool ``[E]``.

    Returns:
        In the order of the episodes.
    """
    rows = environments.num_envs
    environments.seed_episodes()
    quota = torch.full((rows,), episodes // rows) + (torch.arange(rows) < episodes % rows)
    returns: list[list[float]] = [[] for _ in range(rows)]
    lengths: list[list[int]] = [[] for _ in range(rows)]
    running = torch.zeros(rows, dtype=torch.float64)
    length = torch.zeros(rows, dtype=torch.int64)
    observation = environments.reset()
    with torch.no_grad():
        for step_index in range(STEP_LIMIT):
            step = environments.step(act(observation))
            running += step.reward.double() * step.valid
            length += step.valid
            observation = step.observation
            if forget is not None:
                forget(step.ended)
            last = step_index == STEP_LIMIT - 1
            for row in ((step.terminated | step.truncated | last) & step.valid).nonzero().flatten().tolist():
                if len(returns[row]) < quota[row]:
                    returns[row].append(running[row].item())
                    lengths[row].append(int(length[row]))
                running[row] = 0.0
                length[row] = 0
            if all(len(returns[row]) >= quota[row] for row in range(rows)):
                break
    order = [(j, row) for j in range(max(map(len, returns))) for row in range(rows) if j < len(returns[row])]
    return [returns[row][j] for j, row in order], [lengths[row][j] for j, row in order]


def measure_returns(
    act: Callable[[Tensor], Tensor], environments: Environments, episodes: int, forget: Forget | None = None
) -> dict[str, float]:
    """Mean and deviation of the returns of :func:`run_episodes`, their mean length and number; closes the environments."""
    try:
        returns, lengths = run_episodes(act, environments, episodes, forget)
    finally:
        environments.close()
    values = torch.tensor(returns, dtype=torch.float64)
    return {
        "evaluation_return": values.mean().item(),
        "evaluation_deviation": values.std().item() if len(returns) > 1 else 0.0,
        "evaluation_length": sum(lengths) / len(lengths),
        "evaluation_episodes": len(returns),
    }
