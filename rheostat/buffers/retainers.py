"""WHAT IS KEPT? as parts, for rows of tokens: valid rows, stale rows marked, whole groups of earlier batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rheostat.buffers.mixing import Mixture
from rheostat.buffers.recent import RecentRows
from rheostat.objectives.preference import best_of_n
from rheostat.options import option
from rheostat.parts import Batch, Context, row_reward
from rheostat.trajectories import Source, join_rows


@dataclass(frozen=True)
class Valid:
    """Masks rows without a valid grade and, optionally, truncated ones."""

    mask_truncated: bool = option(False)
    """Leave completions that hit the length limit out of the loss (DAPO's overlong filtering)."""

    def retain(self, context: Context, batch: Batch) -> Batch:
        rows = batch.rows
        keep = rows.valid & ~rows.truncated.any(1, keepdim=True) if self.mask_truncated else rows.valid
        rows.mask = rows.mask & keep
        return batch


@dataclass(frozen=True)
class AtLeast:
    """Masks rows whose reward is below a threshold."""

    threshold: float = option(1.0)
    """Smallest reward that is kept."""

    def retain(self, context: Context, batch: Batch) -> Batch:
        rows = batch.rows
        rows.mask = rows.mask & (rows.reward.sum(1, keepdim=True) >= self.threshold)
        return batch


@dataclass(frozen=True)
class BestOfGroup:
    """Masks all members of a group but the best one: of equal rewards the first."""

    def retain(self, context: Context, batch: Batch) -> Batch:
        rows = batch.rows
        reward, keep = row_reward(batch).masked_fill(~rows.mask.any(1), -torch.inf), torch.zeros(len(rows), dtype=torch.bool)
        for group in rows.group[:, 0].unique():
            members = (rows.group[:, 0] == group).nonzero()[:, 0]
            keep[members[best_of_n(reward[members][None])]] = True
        rows.mask = rows.mask & keep[:, None]
        return batch


@dataclass(frozen=True)
class MarkStale:
    """Marks rows that an older policy sampled as stale."""

    keeps_units: ClassVar[bool] = True

    def retain(self, context: Context, batch: Batch) -> Batch:
        rows = batch.rows
        stale = (rows.source == int(Source.FRESH)) & (rows.version < context.updates)
        rows.source = torch.where(stale, int(Source.STALE), rows.source)
        return batch


@dataclass(frozen=True)
class SamplerHead:
    """Notes the sampler's likeliest tokens of every step, and their probabilities, before rows of other samplers join the batch.

    They are scored again with the weights that sampled, so what an engine rounds otherwise is not in them (``meter/parity_worst`` tells).
    """

    tokens: int
    """How many; the probability of all others is noted as one number."""
    keeps_units: ClassVar[bool] = True
    writes: ClassVar[Sequence[str]] = ("head", "sampler_head")

    def retain(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        rows.head, logp = context.sampler_head(rows, self.tokens)
        rows.sampler_head = logp.masked_fill(rows.sampler_logp.isnan()[..., None], torch.nan)
        return batch


class RecentGroups:
    """Adds whole groups of earlier batches to the fresh ones.

    Args:
        age: oldest data that may be drawn, in policy updates.
        share: of a training batch; the fresh part keeps its size, so the batch grows.
    """

    keeps_history: ClassVar[bool] = True

    def __init__(self, age: int, share: float) -> None:
        self.age, self.share = age, share
        self.recent = RecentRows(age)

    def count(self, fresh: int) -> int:
        """Number of earlier groups for so many fresh ones."""
        return round(fresh * self.share / (1 - self.share))

    def retain(self, context: Context, batch: Batch) -> Batch:
        """The fresh rows and, below them, earlier ones."""
        rows = batch.rows
        fresh = len(rows) if rows.group is None else len(rows.group[:, 0].unique())
        drawn = self.recent.draw(self.count(fresh), context.updates, context.streams["replay"])
        self.recent.append(rows.clone(recurse=False), context.updates)
        return batch if drawn is None else batch.with_rows(join_rows([rows, drawn]))

    def state_dict(self) -> dict[str, Any]:
        """The stored batches."""
        return self.recent.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved batches."""
        self.recent.load_state_dict(state)


class StaleGroups(RecentGroups):
    """Fills each batch with whole groups of the last steps, until the switch, when the window is emptied (ReMix).

    Args:
        mixture: how many, from which steps, and until when.
        prompts: groups of a batch, fresh and stale.
    """

    def __init__(self, mixture: Mixture, prompts: int) -> None:
        super().__init__(mixture.window, mixture.share)
        self.mixture, self.stale = mixture, mixture.counts(prompts)[1]

    def count(self, fresh: int) -> int:
        """Number of earlier groups, whatever the number of fresh ones."""
        return self.stale

    def retain(self, context: Context, batch: Batch) -> Batch:
        """The fresh groups, and those drawn from the window."""
        if self.mixture.mixing(context):
            return super().retain(context, batch)
        self.recent = RecentRows(self.age)
        return batch
