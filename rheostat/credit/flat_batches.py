"""Batches in which every completion earned the same: whitening would make a signal of their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from rheostat.options import option
from rheostat.parts import Batch, Context, row_reward


@dataclass(frozen=True)
class FlatBatches:
    """What is learned from a batch of equal rewards, where a KL is part of the token rewards.

    REINFORCE++ divides by the deviation over the whole batch: where only the KL differs between tokens, that is as large afterwards as a
    whole reward.
    """

    rule: Literal["skip", "whiten"] = option("skip", short="flat_batches")
    """A batch whose rewards are all equal has no advantage (skip), or what whitening makes of the KL alone (whiten)."""
    reads: ClassVar[Sequence[str]] = ("advantage",)

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "kl_coefficient is 0, so a batch of equal rewards has no advantage anyhow; raise it, or leave this alone"
        return {} if method.kl.penalty else {"rule": why}

    def __call__(self, context: Context, batch: Batch) -> Batch:
        rows = batch.rows
        known = rows.valid[:, 0] & rows.sampler_logp.isfinite().any(1) & rows.mask.any(1)
        reward = row_reward(batch)[known]
        flat = not len(reward) or bool((reward == reward[0]).all())
        batch.metrics["flat_batch"] = float(flat)
        if flat and self.rule == "skip":
            rows.advantage = torch.zeros_like(rows.advantage)
        return batch
