"""Acting in a learned dynamics model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rheostat.errors import RheostatError

Model = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Observations ``[N, n]``, actions ``[N, d]`` and a generator to next observations ``[N, n]`` and rewards ``[N]``."""


class Imagined(NamedTuple):
    """One step of N imagined episodes."""

    observation: Tensor  # [N, n]
    action: Tensor  # [N, d]
    alive: Tensor  # bool [N]: the episode had not ended before this step


@torch.no_grad()
def roll_out_model(
    model: Model,
    act: Callable[[Tensor], Tensor],
    start: Tensor,
    horizon: int,
    *,
    generator: torch.Generator,
    ended: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Imagined]:
    """Steps of episodes that begin at ``start`` and end after ``horizon`` steps, where the environment would have ended, or where the
    model's numbers become infinite or NaN.

    Args:
        model: predicts the next step.
        act: observations ``[N, n]`` to actions ``[N, d]``.
        start: ``[N, n]``.
        horizon: steps at most, at least 1.
        generator: of the model's draws.
        ended: observations to bool ``[N]``, where the environment has ended; None: never.

    Yields:
        One :class:`Imagined` per step, until no episode is left. Rows that have ended keep their last values, which mean nothing.

    Raises:
        RheostatError: a horizon below 1.
    """
    if horizon < 1:
        raise RheostatError(f"Imagined episodes of {horizon} steps show nothing: use at least 1.")
    observation, alive = start, torch.ones(len(start), dtype=torch.bool)
    for step in range(horizon):
        action = act(observation)
        yield Imagined(observation, action, alive)
        if step == horizon - 1:
            return
        following, _ = model(observation, action, generator)
        goes_on = alive & following.isfinite().all(-1)
        if ended is not None:
            goes_on = goes_on & ~ended(following)
        if not bool(goes_on.any()):
            return
        observation = torch.where(goes_on.unsqueeze(-1), following, observation)
        alive = goes_on
