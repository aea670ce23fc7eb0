"""Rewards from a flow field: tokens whose latents it predicts badly, relative to the rest of their completion, cost something.

RLFR, arXiv 2510.10201. The scores of a completion are mapped to 0 to 1, small ones are dropped, and the rest is a small negative reward of
its token, which all tokens before it feel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from rheostat.credit.recurrence import reverse_recurrence
from rheostat.errors import RheostatError
from rheostat.masking import masked_mean, require_same_shape, select
from rheostat.objectives.flow_matching import Pairing, debiased, partners
from rheostat.options import option
from rheostat.parts import Batch

Form = Literal["min-max", "bilateral"]
"""Scores of a completion from 0 to 1; or from -1 to 1, where what the field predicts well is rewarded."""


def normalise(score: Tensor, mask: Tensor, *, form: Form = "min-max", released: bool = False) -> Tensor:
    """The scores of every row, mapped linearly so that its largest is 1 and its smallest 0 (or -1); ``[B, T]``, 0 outside the mask.

    A row whose scores are all equal is 0.

    Args:
        score: ``[B, T]`` of 0 and more; masked entries may be NaN.
        mask: ``[B, T]`` bool.
        form: the range.
        released: the smallest score is that of the authors' code. It fills the mask with zeros and takes the smallest entry that is larger
            than the smallest of the row, as if every row had padding: without any, the second smallest score becomes 0, and the smallest
            is below 0.

    Raises:
        RheostatError: different shapes, or a form that does not exist.
    """
    if form not in get_args(Form):
        raise RheostatError(f"Unknown form {form!r}: one of {', '.join(get_args(Form))}.")
    require_same_shape(score=score, mask=mask)
    largest = score.masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
    if released:
        filled = select(score, mask)
        smallest = filled.masked_fill(filled == filled.amin(1, keepdim=True), torch.inf).amin(1, keepdim=True)
    else:
        smallest = score.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    span = largest - smallest
    found = (score - smallest) / span
    found = 2 * found - 1 if form == "bilateral" else found
    return select(found, mask & (span > 0) & span.isfinite())


def keep_largest(score: Tensor, *, threshold: float | None, top_k: int | None) -> Tensor:
    """Scores that are large in size, at most some of them in every row; 0 elsewhere. Of equal ones the first are kept.

    Args:
        score: ``[B, T]``.
        threshold: only what is larger than this; None keeps all.
        top_k: most scores of a row; None is no limit.
    """
    size = score.abs()
    keep = torch.ones_like(score, dtype=torch.bool) if threshold is None else size > threshold
    if top_k is not None:
        order = torch.where(keep, size, -1.0).argsort(dim=1, descending=True, stable=True)
        keep = keep & (order.argsort(dim=1) < top_k)
    return torch.where(keep, score, 0.0)


def flow_seeds(context: Any, rows: int) -> Tensor:
    """A seed of the noise for every row, int64 ``[B]``, so that the noise of a row depends neither on padding nor on the rows beside it."""
    return torch.randint(2**62, (rows,), generator=context.streams["flow"])


@dataclass(frozen=True)
class FlowSeeds:
    """Draws the seeds of the batch's noise."""

    writes: ClassVar[Sequence[str]] = ("flow_seed",)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        batch.columns["flow_seed"] = flow_seeds(context, len(batch))
        return batch


@dataclass(frozen=True)
class FlowRewards:
    """Penalties on tokens that the flow field predicts badly, as returns added to the advantage."""

    coefficient: float = option(0.01, short="flow_coefficient", at_least=0)
    """Penalty lambda of the token of a completion that the flow field predicts worst."""
    form: Form = option("min-max", short="flow_form")
    """Scores of a completion from 0 to 1; or from -1 to 1, which also rewards what is predicted well."""
    threshold: float | None = option(0.6, short="flow_threshold", at_least=0, below=1)
    """Only normalised scores larger than this count; None counts all."""
    top_k: int | None = option(15, short="flow_top_k", at_least=1)
    """Most tokens of a completion that are penalised; None is no limit."""
    released: bool = option(False, short="flow_released")
    """Normalise as the released code does: a completion as long as the batch loses its smallest score, and times weigh equally."""
    times: tuple[float, ...] = (0.8,)
    pairing: Pairing = "token-post"
    model: str = "flow"
    reads: ClassVar[Sequence[str]] = ("advantage", "flow_seed")
    writes: ClassVar[Sequence[str]] = ("flow_reward",)

    @property
    def models(self) -> Sequence[str]:
        """Names of the models that it evaluates."""
        return (self.model,)

    def rewards(self, score: Tensor, mask: Tensor) -> Tensor:
        """Token rewards ``[B, T]`` from debiased deviations ``[B, T]``, 0 outside the mask (bool)."""
        found = normalise(score, mask, form=self.form, released=self.released)
        return -self.coefficient * keep_largest(found, threshold=self.threshold, top_k=self.top_k)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, field = batch.rows, context.models[self.model]
        with torch.no_grad():
            deviations = field.deviations(context, rows, batch.columns["flow_seed"], times=self.times)
        paired = rows.mask & partners(rows.attention, self.pairing)
        batch.metrics["flow/deviation"] = masked_mean(deviations.mean(-1), paired).item()
        reward, columns = torch.zeros(rows.shape, device=rows.mask.device), paired.any(0)  # completions without what is left of them all
        score = debiased(deviations[:, columns], self.times, released=self.released)
        reward[:, columns] = self.rewards(score, paired[:, columns])
        return self.add(batch, reward)

    def add(self, batch: Batch, reward: Tensor) -> Batch:
        """The batch with token rewards ``[B, T]`` in its advantages: every token has those that are still to come."""
        rows = batch.rows
        batch.columns["flow_reward"] = reward
        rows.advantage = rows.advantage + select(reverse_recurrence(reward, torch.ones_like(reward), rows.mask), rows.mask)
        batch.metrics["flow/reward"] = masked_mean(reward.sum(1), rows.mask.any(1)).item()
        return batch
