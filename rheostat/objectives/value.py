"""Regression of a critic on its target, plain or clipped around the value at the start of the update."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat import masking
from rheostat.errors import RheostatError
from rheostat.masking import Aggregation, require_same_shape, select


def value_loss(
    value: Tensor,
    target: Tensor,
    *,
    old_value: Tensor | None = None,
    clip: float | None = None,
    pessimistic: bool = True,
    scale: float = 0.5,
    mask: Tensor | None = None,
    aggregate: Aggregation = "token-mean",
    denominator: Tensor | float | None = None,
    data_parallel_size: int = 1,
) -> Tensor:
    """Squared error of a critic, a scalar to be minimised.

    The published forms differ by a factor two and by the meaning of clipping:

    | form | loss | arguments |
    |---|---|---|
    | CleanRL, verl | 0.5 mean max((v - R)^2, (v_clip - R)^2) | the defaults |
    | Stable-Baselines3 | mean (v_clip - R)^2 | ``pessimistic=False, scale=1.0`` |

    with ``v_clip = v_old + clip(v - v_old, -c, c)``. The pessimistic form cuts the gradient only where the clipped error is the larger one.

    Args:
        value: critic's prediction, ``[N]`` or ``[B, T]``; carries the gradient.
        target: of the regression, the same shape; a constant.
        old_value: prediction at the start of the update, the same shape; a constant. Needed for clipping.
        clip: half width of the window around ``old_value`` in units of value; None does not clip.
        pessimistic: take the larger of the two errors; False replaces the value by the clipped one.
        scale: factor on the whole loss.
        mask: bool, the same shape; masked entries may be NaN.
        aggregate: see :func:`rheostat.masking.aggregate`, as for the next two.
        denominator: divides the aggregated sum.
        data_parallel_size: number of devices whose gradients will be averaged.

    Raises:
        RheostatError: different shapes (a silent ``[N]`` against ``[N, 1]`` would regress every value on every target), or a clip without
            ``old_value``.
    """
    require_same_shape(value=value, target=target, old_value=old_value, mask=mask)
    value, target = select(value, mask), select(target, mask).detach()
    if clip is None:
        error = (value - target).square()
    else:
        if old_value is None:
            raise RheostatError("Clipping the value needs the value at the start of the update: give old_value, or clip=None.")
        old_value = select(old_value, mask).detach()
        error = (old_value + (value - old_value).clamp(-clip, clip) - target).square()
        if pessimistic:
            error = torch.maximum((value - target).square(), error)
    return scale * masking.aggregate(error, mask, aggregate, denominator=denominator, data_parallel_size=data_parallel_size)
