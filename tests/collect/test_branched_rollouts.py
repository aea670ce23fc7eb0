"""Rollouts that branch off: where they stop, and what they hand on."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.collect.control.branched_rollouts import BranchStep, branch


def doubling(observation: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The model doubles the state and pays it."""
    return 2 * observation, observation[:, 0].clone()


def branches(start: list[float], horizon: int, limit: float = float("inf")) -> list[BranchStep]:
    return list(
        branch(
            doubling,
            lambda observation: (observation, -observation[:, 0]),
            torch.tensor(start).unsqueeze(-1),
            horizon,
            generator=torch.Generator(),
            ended=lambda following: following[:, 0] >= limit,
        )
    )


def test_they_follow_their_own_predictions_for_so_many_steps() -> None:
    steps = branches([1.0, 3.0], 3)
    assert [step.observation[:, 0].tolist() for step in steps] == [[1.0, 3.0], [2.0, 6.0], [4.0, 12.0]]
    assert [step.following[:, 0].tolist() for step in steps] == [[2.0, 6.0], [4.0, 12.0], [8.0, 24.0]]
    assert [step.reward.tolist() for step in steps] == [[1.0, 3.0], [2.0, 6.0], [4.0, 12.0]]
    assert steps[1].log_prob.tolist() == [-2.0, -6.0]


def test_the_step_that_ends_a_branch_is_its_last() -> None:
    steps = branches([1.0, 3.0], 9, limit=8.0)
    assert [step.ended.tolist() for step in steps] == [[False, False], [False, True], [True]]
    assert steps[-1].observation.tolist() == [[4.0]]


def test_a_prediction_that_is_not_finite_leaves_no_trace() -> None:
    steps = branches([1.0, 3e38], 2)
    assert [step.observation[:, 0].tolist() for step in steps] == [[1.0], [2.0]]
    assert branches([3e38], 2) == []
