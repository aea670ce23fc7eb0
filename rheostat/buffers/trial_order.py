"""The order of things in a trial of many episodes: when the policy is updated on which rows, and how finished episodes change places."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from rheostat.errors import RheostatError


class Due(NamedTuple):
    """One update within a trial."""

    steps: int
    """Steps of every environment that the context holds by then."""
    final: bool
    """Whether it is the trial's last."""
    loss_from: int
    """The first step that the loss is about; those before it are only context."""


def update_schedule(steps: int, updates: int, full: int) -> list[Due]:
    """The updates of a trial: partial ones on the steps since the last update, and full ones on all steps.

    Args:
        steps: of every environment in a trial N.
        updates: K, after every N / K steps.
        full: F; every (K / F)-th update is a full one, 0 is none.

    Raises:
        RheostatError: updates that do not divide the steps, or full ones that do not divide the updates.
    """
    if steps % updates:
        raise RheostatError(f"{updates} updates do not divide the {steps} steps of a trial.")
    if full and updates % full:
        raise RheostatError(
            f"full_updates {full} must divide updates_per_trial {updates}, so that every so many updates one is full: choose a divisor."
        )
    every = steps // updates
    whole = [bool(full) and number % (updates // full) == 0 for number in range(1, updates + 1)]
    return [Due(number * every, number == updates, 0 if whole[number - 1] else (number - 1) * every) for number in range(1, updates + 1)]


def shuffled_places(starts: list[int], steps: int, order: list[int]) -> list[int]:
    """Where the steps of a trial come from when its finished episodes change places; those of the running episode stay at the end.

    Args:
        starts: the first steps of the episodes, from 0; the last is that of the running one (``steps`` where none runs).
        steps: of the trial so far.
        order: a permutation of the finished episodes.

    Returns:
        For every place, the step that it gets.
    """
    finished = list(itertools.pairwise(starts))
    moved = [step for number in order for step in range(*finished[number])]
    return moved + list(range(starts[-1], steps))


def permuted_episodes(begins: Tensor, ended: Tensor, generator: torch.Generator) -> Tensor:
    """:func:`shuffled_places` of every row, int64 ``[E, T]``, in a random order each.

    Args:
        begins: bool ``[E, T]``, the first step of an episode; True in the first column.
        ended: bool ``[E]``, whether the last episode has ended.
        generator: of the permutations.
    """
    steps, found = begins.shape[1], []
    for row, over in zip(begins, ended.tolist(), strict=True):
        starts = [*row.nonzero().flatten().tolist(), *([steps] if over else [])]
        order = torch.randperm(len(starts) - 1, generator=generator).tolist()
        found.append(torch.tensor(shuffled_places(starts, steps, order)))
    return torch.stack(found)


def last_step(seen: Tensor) -> Tensor:
    """The last step of an episode before each step, and before the one after the last, int64 ``[E, T + 1]``; -1 where there is none.

    Args:
        seen: bool ``[E, T]``, False for rows that are no step of an episode.
    """
    time = torch.arange(seen.shape[1]).expand(seen.shape)
    so_far = torch.where(seen, time, -1).cummax(1).values if seen.shape[1] else time
    return torch.cat([torch.full((len(seen), 1), -1), so_far], 1)


def of_last_step(column: Tensor, last: Tensor) -> Tensor:
    """A column ``[E, T, ...]`` as it was in the steps ``last`` ``[E, S]``: ``[E, S, ...]``, 0 where there is none."""
    rows = torch.arange(len(column)).unsqueeze(1)
    found = column[rows, last.clamp(min=0)]
    return found.masked_fill((last < 0).view(*last.shape, *[1] * (column.dim() - 2)), 0)
