"""Fitted Q evaluation against values in closed form, with its defaults."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rheostat.analysis.offline_evaluation import FQEConfig, evaluate_offline
from rheostat.buffers.offline import OfflineData
from rheostat.errors import RheostatError
from rheostat.policies.control.distributions import Categorical
from rheostat.trajectories import Transitions


def data_of(
    states: np.ndarray, actions: np.ndarray, rewards: np.ndarray, following: np.ndarray, ends: np.ndarray, cuts: np.ndarray, n: int
) -> OfflineData:
    """Steps of a world with ``n`` states, shown one-hot, and two actions or three."""

    def hot(x: np.ndarray) -> Tensor:
        return torch.eye(n)[torch.as_tensor(x)]

    count = len(states)
    rows = Transitions(
        observation=hot(states), next_observation=hot(following), action=torch.as_tensor(actions), reward=torch.as_tensor(rewards).float(),
        terminated=torch.as_tensor(ends), truncated=torch.as_tensor(cuts), sampler_logp=torch.full((count,), math.nan), batch_size=[count],
    )  # fmt: skip
    box = spaces.Box(-np.inf, np.inf, (n,), np.float32)
    return OfflineData(rows, torch.as_tensor(ends | cuts), observation_space=box, action_space=spaces.Discrete(int(actions.max()) + 1))


def chain(episodes: int = 400) -> OfflineData:
    """Three states in a row; the reward in the last step is 10 with probability 0.2, else 0: its mean 2 is far from its median."""
    generator = np.random.default_rng(0)
    states = np.tile([0, 1, 2], episodes)
    rewards = np.where(states == 2, np.where(generator.random(3 * episodes) < 0.2, 10.0, 0.0), 0.0)
    return data_of(
        states, generator.integers(0, 2, 3 * episodes), rewards, np.minimum(states + 1, 2), states == 2, np.zeros(3 * episodes, bool), 3
    )


def test_the_value_is_a_mean_and_not_a_robust_middle() -> None:
    data = chain()
    (row,) = evaluate_offline(lambda x: Categorical(torch.zeros(len(x), 2)), data, ("fqe",), config=FQEConfig(steps=4000, hidden=(32,)))
    truth = 0.99**2 * float(data.transitions.reward[2::3].mean())
    assert row.value == pytest.approx(truth, abs=0.1) and row.converged
    assert 0.5 < row.standard_error / (4 * 0.99**2 / math.sqrt(400)) < 2


def choices(episodes: int = 60) -> OfflineData:
    """Episodes of five steps, all cut by a time limit; the right one of three actions earns 1. The data is right three times in four."""
    generator = np.random.default_rng(0)
    count = 5 * episodes
    states, following = generator.integers(0, 3, count), np.empty(count, dtype=int)
    following[:-1], following[-1] = states[1:], 0
    cuts = np.arange(count) % 5 == 4
    following[cuts] = generator.integers(0, 3, cuts.sum())
    actions = np.where(generator.random(count) < 0.7, states, generator.integers(0, 3, count))
    return data_of(states, actions, (actions == states).astype(float), following, np.zeros(count, bool), cuts, 3)


def best(observation: Tensor) -> Categorical:
    return Categorical(50 * observation)


def test_a_long_horizon_is_seen_to_its_end() -> None:
    (row,) = evaluate_offline(best, choices(), ("fqe",), config=FQEConfig(hidden=(32, 32)))
    assert row.value == pytest.approx(100, rel=0.02) and row.converged and "beyond time limits" in row.horizon
    assert abs(row.value - 100) < 3 * row.standard_error + 0.5


def test_with_a_horizon_the_time_limit_counts() -> None:
    (row,) = evaluate_offline(best, choices(), ("fqe",), config=FQEConfig(hidden=(32, 32), horizon=5, steps=5000))
    assert row.value == pytest.approx((1 - 0.99**5) / 0.01, rel=0.02) and row.horizon == "5 steps"


def test_a_fit_that_has_not_settled_says_so_in_its_error() -> None:
    (row,) = evaluate_offline(best, choices(), ("fqe",), config=FQEConfig(hidden=(32, 32), steps=100))
    assert row.converged is False and abs(row.value - 100) < 3 * row.standard_error


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"horizon": 0}, {"horizon": 50, "steps": 20}, {"tolerance": 0.0}, {"gamma": 1.5}, {"steps": 0}):
        with pytest.raises(RheostatError, match=next(iter(wrong))):
            FQEConfig(**wrong)
