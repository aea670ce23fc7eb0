"""Short rollouts of a learned dynamics model that branch off from states of the environment (MBPO, Janner et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rheostat.collect.control.model_rollouts import Model


class BranchStep(NamedTuple):
    """One step of the m branches that have not ended before it."""

    observation: Tensor  # [m, n]
    action: Tensor  # [m, d] unit actions
    log_prob: Tensor  # [m] nats, of the unit actions
    reward: Tensor  # [m]
    following: Tensor  # [m, n] predicted next observation
    ended: Tensor  # bool [m]: the environment would have ended there


@torch.no_grad()
def branch(
    model: Model,
    act: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    horizon: int,
    *,
    generator: torch.Generator,
    ended: Callable[[Tensor], Tensor],
) -> Iterator[BranchStep]:
    """Steps of branches that begin at ``start`` and stop after ``horizon`` steps, or where the environment would have ended.

    A branch whose prediction is not finite is dropped without a trace of that step.

    Args:
        model: predicts the next step from observations and unit actions.
        act: observations ``[N, n]`` to unit actions ``[N, d]`` and their log-probabilities ``[N]``.
        start: ``[N, n]``, raw observations.
        horizon: steps at most, at least 1.
        generator: of the model's draws.
        ended: observations to bool ``[N]``, where the environment has ended.

    Yields:
        One :class:`BranchStep` per step, until no branch is left.
    """
    observation = start
    for _ in range(horizon):
        action, log_prob = act(observation)
        following, reward = model(observation, action, generator)
        whole = following.isfinite().all(-1) & reward.isfinite()
        if not bool(whole.all()):
            observation, action, log_prob, reward, following = (x[whole] for x in (observation, action, log_prob, reward, following))
        over = ended(following)
        if len(following):
            yield BranchStep(observation, action, log_prob, reward, following, over)
        observation = following[~over]
        if not len(observation):
            return
