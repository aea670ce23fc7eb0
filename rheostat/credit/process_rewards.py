"""Process rewards: what a single token did to the prospects of its row, as a reward model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.masking import masked_mean, require_same_shape, select
from rheostat.options import option
from rheostat.parts import Batch, row_reward


def progress_rewards(before: Tensor, after: Tensor, mask: Tensor) -> Tensor:
    """``V(after the token) - V(before it)``, ``[B, T]`` and 0 outside the mask: over a row of one turn they add up to its last value minus
    that of its prompt.

    Args:
        before, after: ``[B, T]`` values; masked entries may be NaN.
        mask: ``[B, T]`` bool.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(before=before, after=after, mask=mask)
    return select(after - before, mask)


def pair_accuracy(value: Tensor, reward: Tensor, group: Tensor, valid: Tensor) -> Tensor:
    """Of all pairs of a group whose rewards differ, the share that a value orders like the reward; a tie is half right, no pair is NaN.

    Args:
        value, reward: ``[B]`` float.
        group: ``[B]`` integers.
        valid: ``[B]`` bool, rows that count.
    """
    better = (reward[:, None] > reward) & (group[:, None] == group) & valid[:, None] & valid
    gap = value[:, None] - value
    return ((gap > 0).float() + 0.5 * (gap == 0).float())[better].mean()


@dataclass(frozen=True)
class ProcessRewards:
    """The reward model's progress on every token, added to the advantage (Setlur et al. 2024, arXiv 2410.08146)."""

    coefficient: float = option(1.0, short="process_coefficient", at_least=0)
    """Weight alpha of the process rewards beside the outcome's advantage."""
    model: str = "reward"
    reads: ClassVar[Sequence[str]] = ("advantage",)
    writes: ClassVar[Sequence[str]] = ("process_reward",)

    @property
    def models(self) -> Sequence[str]:
        """Models it asks."""
        return (self.model,)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        with torch.no_grad():
            scores = context.score(rows, self.model, entropy=False)
        progress = progress_rewards(scores.value, scores.next_value, rows.mask)
        batch.columns["process_reward"] = progress
        rows.advantage = rows.advantage + self.coefficient * progress
        learned = rows.mask.any(1)
        last = scores.next_value.gather(1, last_kept(rows.mask)[:, None])[:, 0]
        batch.metrics["reward_model/progress"] = masked_mean(progress.abs(), rows.mask).item()
        found = pair_accuracy(last, row_reward(batch), rows.group[:, 0], learned)
        batch.metrics |= {} if bool(found.isnan()) else {"reward_model/pair_accuracy": found.item()}
        return batch


def last_kept(mask: Tensor) -> Tensor:
    """Column ``[B]`` of the last kept token of each row ``[B, T]``; 0 in an empty row."""
    return torch.where(mask, torch.arange(mask.shape[1], device=mask.device), 0).amax(1)
