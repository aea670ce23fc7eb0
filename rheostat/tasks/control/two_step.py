"""The TwoStep toy of the PROPS repository: the better branch needs two right choices in a row.

The root (state 0) goes left (state 1) or right (state 2) with reward 0; the second step then earns 2 or 0.5 on the left, 1 either way on
the right. A policy that still chooses badly in the second step prefers the right branch, so sampling noise decides which branch it learns.
"""

from __future__ import annotations

import torch

from rheostat.tasks.control.tabular import TabularEnvironment, TabularMDP


def two_step() -> TabularMDP:
    """States: root, left, right; actions: left, right. The best return is 2 (left, left)."""
    return TabularMDP(
        next_state=torch.tensor([[1, 2], [1, 1], [2, 2]]),
        reward=torch.tensor([[0.0, 0.0], [2.0, 0.5], [1.0, 1.0]]),
        ends=torch.tensor([[False, False], [True, True], [True, True]]),
        start=torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64),
        limit=2,
    )


class TwoStep(TabularEnvironment):
    """The table as an environment; every episode ends after two steps."""

    def __init__(self) -> None:
        super().__init__(two_step())
