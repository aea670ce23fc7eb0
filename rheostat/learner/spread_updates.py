"""Gradient steps whose minibatches hold equal parts of the policy's own rows and of the rows that it imitates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rheostat.learner.update import Update
from rheostat.parts import Batch
from rheostat.trajectories import Source


@dataclass(frozen=True)
class SpreadUpdate(Update):
    """As :class:`~rheostat.learner.update.Update`, with the expert's rows spread evenly over the minibatches of a pass."""

    def minibatch_rows(self, context: Any, batch: Batch, usable: Tensor) -> Sequence[Tensor]:
        """Indices of the rows of every minibatch: both kinds are cut on their own, own rows from the first minibatch on and the expert's
        from the last one, so that none is empty."""
        if self.minibatches == 1:
            return [usable]
        generator, count = context.streams["minibatches"], min(self.minibatches, len(usable))
        expert = batch.rows.source[usable, 0] == int(Source.EXPERT)
        own, theirs = (
            rows[torch.randperm(len(rows), generator=generator)].tensor_split(count) for rows in (usable[~expert], usable[expert])
        )
        return [torch.cat(pair) for pair in zip(own, reversed(theirs), strict=True)]
