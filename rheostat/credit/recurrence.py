"""The one recurrence that returns, advantages and traces are solutions of."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from rheostat.masking import require_same_shape


def reverse_recurrence(increment: Tensor, decay: Tensor, mask: Tensor | None = None) -> Tensor:
    """Solve ``x_t = increment_t + decay_t * x_{t+1}`` along the last dimension, with ``x = 0`` after the end.

    Prefix doubling: after k rounds an entry holds the sum of the 2^k steps from it on, so T steps take ceil(log2 T) rounds of whole-tensor
    operations instead of T Python steps. Differentiable in both arguments.

    Args:
        increment: ``[..., T]`` float.
        decay: the same shape.
        mask: bool, the same shape; masked steps pass the solution through (increment 0, decay 1), whatever they hold, NaN included.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(increment=increment, decay=decay, mask=mask)
    if mask is not None:
        increment, decay = increment.masked_fill(~mask, 0.0), decay.masked_fill(~mask, 1.0)
    shift, length = 1, increment.shape[-1]
    while shift < length:
        increment = increment.addcmul(decay, pad(increment[..., shift:], (0, shift)))
        if 2 * shift < length:
            decay = decay * pad(decay[..., shift:], (0, shift))
        shift *= 2
    return increment
