"""WHO ACTS? Which vehicle takes which order: an assignment of the largest total value.

Zero columns stand for "no order", so that a pair of a value below 0 is never made. An order is forced on a vehicle by a value above every
other one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rheostat.tasks.fleet.roads import Floats, Ints

FORCED = 1e8
"""Value of a pair that exploration forces."""
NONE = -1


def assign(value: Floats) -> Ints:
    """The assignment of the largest total.

    Args:
        value: of pairs, ``[N, O]``.

    Returns:
        ``[N]``, the order of each vehicle, -1 for none.
    """
    from scipy.optimize import linear_sum_assignment

    count, orders = value.shape
    row, column = linear_sum_assignment(np.concatenate([value, np.zeros_like(value)], 1), maximize=True)
    found = np.full(count, NONE, np.int64)
    found[row] = np.where(column < orders, column, NONE)
    return found


def match(value: Floats, free: NDArray[np.bool_], is_open: NDArray[np.bool_]) -> Ints:
    """The assignment in each of several cities.

    Args:
        value: of pairs, ``[C, N, O]``.
        free: vehicles that can take an order, ``[C, N]``.
        is_open: orders that there are, ``[C, O]``.

    Returns:
        ``[C, N]``, -1 for none.
    """
    found = np.full(free.shape, NONE, np.int64)
    for city in range(len(value)):
        vehicles, orders = np.flatnonzero(free[city]), np.flatnonzero(is_open[city])
        if len(vehicles) and len(orders):
            column = assign(value[city][np.ix_(vehicles, orders)])
            found[city, vehicles] = np.where(column == NONE, NONE, orders[np.maximum(column, 0)])
    return found
