"""Imagined episodes: when they end, and what is yielded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheostat.collect.control.model_rollouts import roll_out_model
from rheostat.errors import RheostatError


def count_up(observation: Tensor, action: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The world adds the action."""
    return observation + action, torch.zeros(len(observation))


def episode(start: list[float], horizon: int, limit: float | None = None, action: float = 1.0) -> list[tuple[list[float], list[bool]]]:
    steps = roll_out_model(
        count_up,
        lambda observation: torch.full_like(observation, action),
        torch.tensor(start).unsqueeze(-1),
        horizon,
        generator=torch.Generator(),
        ended=None if limit is None else lambda observation: observation[:, 0] >= limit,
    )
    return [(step.observation[:, 0].tolist(), step.alive.tolist()) for step in steps]


def test_without_an_end_there_are_as_many_steps_as_the_horizon() -> None:
    assert episode([0.0, 5.0], 3) == [([0.0, 5.0], [True, True]), ([1.0, 6.0], [True, True]), ([2.0, 7.0], [True, True])]


def test_an_episode_that_ended_stays_and_is_not_alive() -> None:
    seen = episode([0.0, 5.0], 9, limit=7.0)
    assert [alive for _, alive in seen][:3] == [[True, True], [True, True], [True, False]]
    assert [place[1] for place, _ in seen] == [5.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]
    assert len(seen) == 7 and seen[-1][0][0] == 6.0  # no step after the last one has ended


def test_what_leaves_the_numbers_ends() -> None:
    assert len(episode([0.0], 9, action=float("inf"))) == 1


def test_no_steps_are_refused() -> None:
    with pytest.raises(RheostatError, match="at least 1"):
        episode([0.0], 0)
