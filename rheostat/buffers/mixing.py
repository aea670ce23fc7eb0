"""Batches of two sources: how many rows each gives, and in which order they stand."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from rheostat.errors import RheostatError
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
    first = ahead.diff() > 0
    place = torch.empty(size, dtype=torch.int64)
    place[first], place[~first] = torch.arange(len(offline)), torch.arange(len(offline), size)
    fields: dict[str, Tensor] = {}
    for name in (item.name for item in dataclasses.fields(Transitions)):
        one, other = getattr(offline, name), getattr(online, name)
        if name == "weight" and (one is None) != (other is None):
            one, other = (torch.ones_like(rows.reward) if rows.weight is None else rows.weight for rows in (offline, online))
        if one is None or other is None:
            continue
        if one.shape[1:] != other.shape[1:]:
            raise RheostatError(
                f"Offline and online rows cannot share a batch: {name} has the shape {list(one.shape[1:])} and {list(other.shape[1:])}."
            )
        fields[name] = torch.cat([one, other])[place.to(one.device)]
    return Transitions(**fields, batch_size=[size])  # type: ignore[arg-type]
