"""Rewards of states: checked answers, and environments that pay them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.tasks.control.environments import make
from rheostat.tasks.control.state_rewards import NearGoal, Rewarded, StateReward


def broken(observation: np.ndarray) -> Any:
    raise KeyError("velocity")


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (
            broken,
            r"The reward broken cannot be computed from observations \[3, 2\]: 'velocity'.*function of the observation after the action",
        ),
        (lambda x: x, r"numbers of shape \[3, 2\] for 3 observations: return one number for each"),
        (lambda x: 1.0, r"numbers of shape \[\] for 3"),
        (lambda x: np.log(x[:, 0]), "is not finite for 3 observations"),
        (lambda x: ["a"] * len(x), "cannot be computed"),
    ],
)
def test_what_is_no_reward(function: Any, sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence), np.errstate(all="ignore"):
        StateReward(function)(torch.zeros(3, 2))


def test_environments_pay_it_for_the_state_after_the_action() -> None:
    worlds, same = (make("point-maze", num_envs=4, seed=0, horizon=3) for _ in range(2))
    paid = Rewarded(worlds, StateReward(lambda x: x[:, 0], "x"))
    assert torch.equal(paid.reset(), same.reset()) and paid.num_envs == 4
    for _ in range(4):
        step, other = paid.step(torch.ones(4, 2)), same.step(torch.ones(4, 2))
        assert torch.equal(step.reward, step.next_observation[:, 0]) and torch.equal(step.next_observation, other.next_observation)


def test_near_a_goal() -> None:
    reward = StateReward(NearGoal(torch.tensor([0.5, 0.0]), 0.25))
    assert reward(torch.tensor([[0.5, 0.25], [0.5, 0.26], [0.3, 0.1]])).tolist() == [1.0, 0.0, 1.0]
