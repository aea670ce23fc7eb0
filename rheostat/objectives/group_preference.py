"""Groups of equivalent answers preferred to inequivalent ones (GEPO of OORL, arXiv 2505.12723): its loss, and the term of it.

With the summed log-ratios ``w_1 .. w_n`` of the equivalent answers to one prompt and ``l_1 .. l_m`` of the inequivalent ones:

    loss = -log sigmoid(beta (mean w - mean l)) + lambda Var(w)

One pair, ``n = m = 1``, is DPO. (Another method of that acronym, group-expectation policy optimisation, is not meant.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from rheostat.masking import masked_sum, require_same_shape
from rheostat.objectives.preference import sigmoid_loss
from rheostat.objectives.terms import TokenTerm
from rheostat.parts import Batch, Context, Report
from rheostat.trajectories import Source

Variance = Literal["population", "sample"]


class GroupLosses(NamedTuple):
    """Of every group ``[G]``."""

    loss: Tensor
    margin: Tensor
    """``mean w - mean l`` in nats."""
    variance: Tensor
    """Of ``w``, in squared nats, without beta."""
    likelier: Tensor
    """``mean w`` in nats: how much likelier the equivalent answers have become."""


def group_preference_loss(
    log_ratio: Tensor,
    equivalent: Tensor,
    group: Tensor,
    *,
    beta: float,
    spread: float,
    variance: Variance = "population",
    beta_inside: bool = False,
) -> GroupLosses:
    """See the module.

    Args:
        log_ratio: ``[R]`` summed log-ratios of answers to the reference, in nats; they carry the gradient.
        equivalent: ``[R]`` bool: which answers are equivalent to what was asked for; every group has answers of both kinds.
        group: ``[R]`` int64: the group of every answer, of any numbers; results are in the order of these numbers.
        beta: scale of the log-ratios.
        spread: lambda, the weight of the variance.
        variance: with n in the denominator, or with n - 1; of a single answer it is 0.
        beta_inside: take the variance of ``beta w`` and not of ``w``.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(log_ratio=log_ratio, equivalent=equivalent, group=group)
    place = group.unique(return_inverse=True)[1]
    count = int(place.max()) + 1 if len(place) else 0

    def total(values: Tensor, chosen: Tensor) -> Tensor:
        return values.new_zeros(count).index_add(0, place[chosen], values[chosen])

    ones = torch.ones_like(log_ratio)
    size = total(ones, equivalent)
    mean = total(log_ratio, equivalent) / size
    margin = mean - total(log_ratio, ~equivalent) / total(ones, ~equivalent)
    squares = total((log_ratio - mean[place]).square(), equivalent)
    spreading = squares / (size if variance == "population" else (size - 1).clamp(min=1))
    loss = sigmoid_loss(margin, beta) + spread * spreading * (beta**2 if beta_inside else 1.0)
    return GroupLosses(loss, margin, spreading, mean)


@dataclass(frozen=True)
class GroupPreference(TokenTerm):
    """A mean over the groups of a gradient step; rows of one unit that are annotations are a group, column ``chosen`` says which answers
    are equivalent."""

    beta: float = 0.1
    spread: float = 1.0
    variance: Variance = "population"
    beta_inside: bool = False
    reads: ClassVar[Sequence[str]] = ("reference_logp", "chosen")
    needs_units: ClassVar[bool] = True

    def mask(self, batch: Batch) -> Tensor:
        """``[B, T]`` bool: the tokens of annotated answers."""
        return batch.rows.mask & (batch.rows.source == int(Source.ANNOTATION))

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Groups of the gradient step."""
        assert batch.units is not None
        return torch.tensor(float(max(1, len(batch.units[self.mask(batch).any(1)].unique()))))

    def groups(self, logp: Tensor, batch: Batch) -> GroupLosses:
        """The losses of the groups ``[G]`` of some rows, from log-probs ``[B, T]``."""
        assert batch.units is not None
        mask = self.mask(batch)
        mine = mask.any(1)
        ratio = masked_sum(logp - batch.rows.reference_logp, mask, -1)
        return group_preference_loss(
            ratio[mine],
            batch.columns["chosen"][mine],
            batch.units[mine],
            beta=self.beta,
            spread=self.spread,
            variance=self.variance,
            beta_inside=self.beta_inside,
        )

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        found = self.groups(scores.logp, batch)
        sums = {
            "margin": found.margin.detach().sum() / denominator,
            "preference_accuracy": (found.margin > 0).sum() / denominator,
            "equivalent_variance": found.variance.detach().sum() / denominator,
            "equivalent_log_ratio": found.likelier.detach().sum() / denominator,
        }
        return found.loss.sum() / denominator, Report(sums=sums)
