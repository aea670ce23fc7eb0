"""Process rewards: how much a single token changed the outcome that a reward model predicts for its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.credit.group_advantages import rloo_advantage
from rheostat.credit.recurrence import reverse_recurrence
from rheostat.errors import RheostatError
from rheostat.masking import masked_mean, require_same_shape, select, standardise
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


def implicit_rewards(logp: Tensor, reference_logp: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """``beta (log pi_phi - log pi_ref)`` of every token, ``[B, T]`` and 0 outside the mask (Yuan et al. 2024, arXiv 2412.01981).

    Args:
        logp: ``[B, T]`` under the reward model, nats; masked entries may be NaN.
        reference_logp: the same under the model that it started from.
        mask: ``[B, T]`` bool.
        beta: reward per nat.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(logp=logp, reference_logp=reference_logp, mask=mask)
    return select(beta * (logp - reference_logp), mask)


def process_returns(reward: Tensor, group: Tensor, mask: Tensor, *, valid: Tensor | None = None, gamma: float = 1.0) -> Tensor:
    """Discounted sums of the token rewards to come, less a baseline from the other rows of the group, ``[B, T]`` and 0 outside
    the mask (Cui et al. 2025, arXiv 2502.01456, equation 5, its first sum).

        G_it = sum_{s >= t} gamma^{s-t} [ r_is - mean_{j != i} (mean_s r_js) ]

    Args:
        reward: ``[B, T]`` of tokens; masked entries may be NaN.
        group: ``[B]`` integers.
        mask: ``[B, T]`` bool.
        valid: ``[B]`` bool; invalid rows are no baseline for others.
        gamma: discount per token.

    Raises:
        RheostatError: different shapes, or a valid reward that is not finite.
    """
    require_same_shape(reward=reward, mask=mask)
    mean = torch.where(mask.any(1), masked_mean(select(reward, mask), mask, -1), 0.0)
    others = mean - rloo_advantage(mean, group, valid=valid)  # RLOO subtracts the mean of the others
    centred = select(reward - others[:, None], mask)
    return select(reverse_recurrence(centred, torch.full_like(centred, gamma), mask), mask)


@dataclass(frozen=True)
class ImplicitRewards:
    """An implicit reward model's token rewards, as returns added to the advantage of the outcome (Cui et al. 2025, arXiv 2502.01456)."""

    coefficient: float = option(1.0, short="process_coefficient", at_least=0)
    """Weight of the process rewards' returns, relative to the outcome's advantage."""
    gamma: float = option(1.0, share=True)
    """Discount per token of the process rewards to come."""
    whiten: bool = option(False)
    """Standardise the sum over the tokens of the batch, as the authors' code does."""
    beta: float = 0.05
    """Reward per nat."""
    model: str = "reward"
    reads: ClassVar[Sequence[str]] = ("advantage", "reference_logp")
    writes: ClassVar[Sequence[str]] = ("process_reward",)

    def __post_init__(self) -> None:
        if self.gamma != 1.0 and not self.coefficient:
            raise RheostatError("gamma discounts process rewards, which count nothing with process_coefficient 0: leave it at 1.")

    @property
    def models(self) -> Sequence[str]:
        """Names of the models that it evaluates."""
        return (self.model,)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, kept = batch.rows, batch.rows.mask.any(1)
        with torch.no_grad():
            logp = context.score(rows, self.model, entropy=False).logp
        reward = implicit_rewards(logp, rows.reference_logp, rows.mask, beta=self.beta)
        batch.columns["process_reward"] = reward
        group = rows.group[:, 0]
        advantage = rows.advantage + self.coefficient * process_returns(reward, group, rows.mask, valid=kept, gamma=self.gamma)
        rows.advantage = standardise(advantage, rows.mask, eps_inside_root=True) if self.whiten else advantage
        batch.metrics["reward_model/process_reward"] = masked_mean(reward, rows.mask).item()
        found = pair_accuracy(reward.sum(1), row_reward(batch), group, kept)
        batch.metrics |= {} if bool(found.isnan()) else {"reward_model/pair_accuracy": found.item()}
        return batch


@dataclass(frozen=True)
class ProcessRewards:
    """The reward model's progress on every token, added to the advantage (Setlur et al. 2024, arXiv 2410.08146)."""

    coefficient: float = option(1.0, short="process_coefficient", at_least=0)
    """Weight alpha of the process rewards, relative to the outcome's advantage."""
    model: str = "reward"
    reads: ClassVar[Sequence[str]] = ("advantage",)
    writes: ClassVar[Sequence[str]] = ("process_reward",)

    @property
    def models(self) -> Sequence[str]:
        """Names of the models that it evaluates."""
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
