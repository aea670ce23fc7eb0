"""Whole rows or groups of the last batches, to be drawn again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.trajectories import Source, Trajectories, join_rows


class RecentRows:
    """Batches that were learned from, until they are ``age`` updates old.

    Rows that share a ``group`` are drawn together, because their advantages are relative to each other; without groups (control) every row
    is drawn for itself.

    Args:
        age: oldest data that may be drawn, in policy updates.
    """

    def __init__(self, age: int) -> None:
        self.age = age
        self.batches: list[tuple[int, Trajectories]] = []

    def append(self, batch: Trajectories, update: int) -> None:
        """Remember a batch ``[B, T]`` that was collected for this update."""
        self.batches.append((update, batch))

    def draw(self, count: int, update: int, generator: torch.Generator) -> Trajectories | None:
        """At most ``count`` different groups (or rows), each equally likely, marked as replayed (an expert's rows stay the expert's);
        None where there are none.

        Args:
            count: how many.
            update: the present one; batches that are too old for it are dropped.
            generator: chooses.

        Returns:
            ``[b, T]``, the rows of the drawn groups.
        """
        self.batches = [(made, batch) for made, batch in self.batches if update - made <= self.age]
        units = [(batch, unit) for made, batch in self.batches if made < update for unit in _units(batch)]
        if not units or not count:
            return None
        chosen = torch.randperm(len(units), generator=generator)[:count].tolist()
        parts = [units[index][0][units[index][1]] for index in sorted(chosen)]
        rows = join_rows(parts)
        expert = rows.source == int(Source.EXPERT) if rows.source is not None else torch.zeros(rows.shape, dtype=torch.bool)
        rows.source = torch.where(expert, int(Source.EXPERT), int(Source.REPLAY))
        return rows

    def state_dict(self) -> dict[str, Any]:
        """All batches, as dicts of tensors."""
        batches = [{name: value.contiguous() for name, value in batch.items() if value is not None} for _, batch in self.batches]
        return {"updates": [update for update, _ in self.batches], "batches": batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved batches."""
        batches = [Trajectories(**fields, batch_size=list(fields["mask"].shape)) for fields in state["batches"]]
        self.batches = list(zip(state["updates"], batches, strict=True))


def _units(batch: Trajectories) -> list[Tensor]:
    """Indices of rows that belong together."""
    if batch.group is None:
        return list(torch.arange(len(batch)).split(1))
    group = batch.group[:, 0]
    return [(group == number).nonzero().flatten() for number in group.unique().tolist()]
