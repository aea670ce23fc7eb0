"""Batches of two sources: how many rows each gives, and in which order they stand."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Context
from rheostat.trajectories import Transitions


def mixed_counts(size: int, stale_share: float, *, window: int | None = None) -> tuple[int, int]:
    """Fresh and stale units (groups, or rows) of a batch of ``size``: ``round(stale_share * size)`` are stale, the rest fresh.

    Exact halves round to the even number. The published mixtures state only the share.

    Args:
        size: units of a batch.
        stale_share: share of it that is not sampled now, at least 0 and below 1.
        window: batches that are remembered, to check that their fresh units can ever supply the stale ones.

    Raises:
        RheostatError: a share outside its range, nothing left to be fresh, or a window that never holds enough.
    """
    if not 0 <= stale_share < 1:
        raise RheostatError(f"A stale share of {stale_share} leaves nothing fresh: it must be at least 0 and below 1.")
    stale = round(stale_share * size)
    fresh = size - stale
    if fresh < 1:
        raise RheostatError(f"A stale share of {stale_share:g} of a batch of {size} leaves nothing fresh: lower it, or enlarge the batch.")
    if window is not None:
        if window < 1 and stale:
            raise RheostatError(f"A window of {window} batches holds nothing stale: remember at least 1, or set the stale share to 0.")
        if window * fresh < stale:
            raise RheostatError(
                f"A stale share of {stale_share:g} asks for {stale} of a batch of {size}, but a window of {window} batches with {fresh} "
                f"fresh ones each holds only {window * fresh}: lower the share or widen the window."
            )
    return fresh, stale


@dataclass(frozen=True)
class Mixture:
    """The share of stale groups in a batch, and the step after which there are none."""

    share: float = option(0.4, short="stale_share", at_least=0, below=1)
    """Share p of a batch's groups that come from the window, up to the switch."""
    window: int = option(2, at_least=1)
    """Steps N whose rollouts are remembered."""
    until: int = option(50, short="switch_after", at_least=0)
    """Step T after which every batch is fresh; 0 mixes to the end."""

    def __post_init__(self) -> None:
        if self.share and 0 < self.until < self.window:
            raise RheostatError(
                f"window is {self.window}, but the run mixes for switch_after {self.until} steps, so it never keeps that many: lower "
                "window or raise switch_after."
            )

    def mixing(self, context: Context) -> bool:
        """Whether the present batch takes groups from the window."""
        return not self.until or context.updates < self.until

    def counts(self, prompts: int) -> tuple[int, int]:
        """Fresh and stale groups of a mixed batch.

        Raises:
            RheostatError: a share or a window that cannot work.
        """
        return mixed_counts(prompts, self.share, window=self.window)


def interleave(offline: Transitions, online: Transitions) -> Transitions:
    """Rows of both, spread evenly: with equal numbers even rows are offline and odd rows online (RLPD, Ball et al. 2023).

    Any stretch of consecutive rows therefore holds both in proportion, to within one row: a batch for several gradient steps can be cut
    into slices.

    Args:
        offline: ``[n]``, rows of a data set.
        online: ``[m]``, rows of the replay.

    Returns:
        ``[n + m]``. Fields that one side does not have are left out, except that a missing ``weight`` is 1.

    Raises:
        RheostatError: a field of different shapes.
    """
    if not len(offline) or not len(online):
        return offline if len(offline) else online
    size = len(offline) + len(online)
    ahead = (torch.arange(size + 1) * len(offline) + size - 1) // size  # offline rows among the first 0, 1, 2, ...
    return placed(offline, online, ahead.diff() > 0)


def placed(one: Transitions, other: Transitions, first: Tensor) -> Transitions:
    """Rows of both in a given order; each keeps its own.

    Args:
        one: ``[n]``.
        other: ``[m]``.
        first: bool ``[n + m]``, True where a row of ``one`` stands.

    Returns:
        ``[n + m]``. Fields that one side does not have are left out, except that a missing ``weight`` is 1.

    Raises:
        RheostatError: a field of different shapes.
    """
    if not len(one) or not len(other):
        return one if len(one) else other
    size = len(first)
    place = torch.empty(size, dtype=torch.int64)
    place[first], place[~first] = torch.arange(len(one)), torch.arange(len(one), size)
    fields: dict[str, Tensor] = {}
    for name in (item.name for item in dataclasses.fields(Transitions)):
        mine, theirs = getattr(one, name), getattr(other, name)
        if name == "weight" and (mine is None) != (theirs is None):
            mine, theirs = (torch.ones_like(rows.reward) if rows.weight is None else rows.weight for rows in (one, other))
        if mine is None or theirs is None:
            continue
        if mine.shape[1:] != theirs.shape[1:]:
            raise RheostatError(
                f"Offline and online rows cannot share a batch: {name} has the shape {list(mine.shape[1:])} and {list(theirs.shape[1:])}."
            )
        fields[name] = torch.cat([mine, theirs])[place.to(mine.device)]
    return Transitions(**fields, batch_size=[size])  # type: ignore[arg-type]
