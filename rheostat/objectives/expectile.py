"""Asymmetric least squares: a value near that of the better actions of the data, which evaluates no other action."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat import masking
from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape, select
from rheostat.objectives.temporal_difference import counted, weighted


def expectile_loss(
    value: Tensor,
    target: Tensor,
    expectile: float,
    *,
    scale: float = 1.0,
    weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> Tensor:
    """``mean |tau - 1{u < 0}| u^2`` with ``u = target - value`` (IQL, Kostrikov et al. 2022), a scalar to be minimised.

    Above 1/2, targets above the value have the larger weight: the solution moves from the mean of the targets (1/2) to their largest (1).

    | code | target | u that weighs the actor |
    |---|---|---|
    | CORL IQL | least of the target critics at the data's action | before the step of V |
    | IQL (JAX), FamO2O | the same | after it |

    Args:
        value: ``[B]`` V(s); carries the gradient.
        target: ``[B]``, a constant.
        expectile: tau, between 0 and 1; 0.5 is half the squared error.
        scale: factor on the whole loss.
        weight: ``[B]``, a constant; rows of weight 0 may hold NaN.
        denominator: divides the sum over rows; None is the number of rows.

    Raises:
        RheostatError: different shapes, or an expectile that is not between 0 and 1.
    """
    require_same_shape(value=value, target=target, weight=weight)
    if not 0 < expectile < 1:
        raise RheostatError(f"An expectile lies between 0 and 1, not at {expectile}.")
    kept = counted(weight)
    u = select(target, kept).detach() - select(value, kept)
    error = torch.where(u < 0, 1 - expectile, expectile) * u.square()
    return scale * masking.aggregate(weighted(error, weight), None, denominator=denominator)
