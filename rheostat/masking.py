"""Masked reductions and the aggregation modes, written once.

Masks are by position, never by token value. Every reduction *selects* with ``torch.where`` instead of multiplying, so that a NaN or an
infinity at a masked position is harmless in the forward and in the backward pass (``NaN * 0`` is NaN, ``where`` is not).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError

Aggregation = Literal["token-mean", "sequence-mean", "sequence-sum", "constant"]
AGGREGATIONS: tuple[Aggregation, ...] = ("token-mean", "sequence-mean", "sequence-sum", "constant")


def require_same_shape(**tensors: Tensor | None) -> None:
    """Refuse tensors of different shapes.

    A silent ``[N]`` against ``[N, 1]`` broadcast changed the algorithm in two published repositories.

    Raises:
        RheostatError: naming every tensor and its shape.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor is not None}
    if len(set(shapes.values())) > 1:
        raise RheostatError(
            "These tensors must have one shape: " + ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) + "."
        )


def select(x: Tensor, mask: Tensor | None, fill: float = 0.0) -> Tensor:
    """``x`` where ``mask`` is True, ``fill`` elsewhere; masked NaN neither shows nor carries a gradient."""
    return x if mask is None else torch.where(mask, x, torch.full_like(x, fill))


def masked_sum(x: Tensor, mask: Tensor | None, dim: int | None = None) -> Tensor:
    """Sum of the entries the mask keeps, over ``dim`` or over everything."""
    x = select(x, mask)
    return x.sum() if dim is None else x.sum(dim)


def masked_mean(x: Tensor, mask: Tensor | None, dim: int | None = None) -> Tensor:
    """Mean of the entries the mask keeps; 0 where it keeps none."""
    if mask is None:
        return x.mean() if dim is None else x.mean(dim)
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_var(x: Tensor, mask: Tensor | None, *, unbiased: bool = True) -> Tensor:
    """Variance over all kept entries; ``unbiased`` divides by n - 1 (0 where fewer than two are kept)."""
    count = torch.as_tensor(x.numel(), device=x.device) if mask is None else mask.sum()
    centred = select(x - masked_mean(x, mask), mask)
    return centred.square().sum() / (count - int(unbiased)).clamp(min=1)


def standardise(x: Tensor, mask: Tensor | None = None, *, eps: float = 1e-8, eps_inside_root: bool = False) -> Tensor:
    """``(x - mean) / std`` over the kept entries, with the unbiased standard deviation; masked entries become 0.

    Fewer than two kept entries are returned as they are (PPO: "skip for size 1"). ``eps`` is added to the standard deviation, or to
    the variance with ``eps_inside_root`` (REINFORCE++ and the whitening of GAE in verl).
    """
    count = x.numel() if mask is None else int(mask.sum())
    if count < 2:
        return select(x, mask)
    variance = masked_var(x, mask)
    scale = (variance + eps).sqrt() if eps_inside_root else variance.sqrt() + eps
    return select((x - masked_mean(x, mask)) / scale, mask)


def natural_denominator(mask: Tensor, mode: Aggregation) -> Tensor:
    """What ``aggregate`` divides by, as a scalar tensor.

    Compute it over the whole batch and hand it to ``aggregate`` on every micro-batch: the sum of the micro-batch losses is then the
    loss of the whole batch, whatever the split, padding or number of devices.

    - ``token-mean``: kept entries. - ``sequence-mean``, ``sequence-sum``: rows with at least one kept entry.
    - ``constant``: has no natural value and must be given by the caller.
    """
    if mode == "token-mean":
        return mask.sum().clamp(min=1)
    if mode in ("sequence-mean", "sequence-sum"):
        return mask.any(-1).sum().clamp(min=1)
    raise RheostatError(f"The aggregation {mode!r} has no denominator of its own: give one (a number) explicitly.")


def aggregate(loss: Tensor, mask: Tensor | None, mode: Aggregation = "token-mean", *, denominator: Tensor | float | None = None) -> Tensor:
    """Reduce a loss ``[B, T]`` (or ``[N]`` with ``token-mean`` and ``constant``) to a scalar.

    | mode | value | used by |
    |---|---|---|
    | token-mean | sum(L m) / sum(m) | PPO, DAPO |
    | sequence-mean | mean over non-empty rows of the row's token mean | GRPO, GSPO |
    | sequence-sum | mean over non-empty rows of the row's token sum | REINFORCE |
    | constant | sum(L m) / denominator | Dr. GRPO |

    Args:
        loss: any float dtype; entries outside the mask may be NaN.
        mask: bool, the shape of ``loss``; None keeps everything.
        mode: how to reduce.
        denominator: replaces the mode's own count; see :func:`natural_denominator`.

    Raises:
        RheostatError: unknown mode, different shapes, or ``constant`` without a denominator.
    """
    if mask is None:
        mask = torch.ones_like(loss, dtype=torch.bool)
    require_same_shape(loss=loss, mask=mask)
    if mode not in AGGREGATIONS:
        raise RheostatError(f"Unknown aggregation {mode!r}: one of {', '.join(AGGREGATIONS)}.")
    if denominator is None:
        denominator = natural_denominator(mask, mode)
    total = masked_mean(loss, mask, -1).sum() if mode == "sequence-mean" else masked_sum(loss, mask)
    return total / denominator
