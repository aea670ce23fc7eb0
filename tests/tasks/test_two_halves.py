"""The point mass with good data on one side."""

from __future__ import annotations

import torch

from rheostat.collect.control.evaluation_episodes import measure_returns
from rheostat.collect.control.offline_data import record, uniform
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.tasks.control.two_halves import NOISE, expert, halves

TASK = "rheostat/TwoHalves-v0"


def test_the_expert_is_far_better_than_chance() -> None:
    worlds = make(TASK, num_envs=5, seed=0)
    good = measure_returns(expert, worlds, 10)["evaluation_return"]
    worlds = make(TASK, num_envs=5, seed=0)
    draw, generator = uniform(worlds.action_space), Streams(0)["actions"]
    poor = measure_returns(lambda observation: draw(observation, generator)[0], worlds, 10)["evaluation_return"]
    assert good > 40 and poor < 32  # 50 is standing on the goal


def test_left_of_the_middle_the_data_are_the_experts_and_right_of_it_anything() -> None:
    data = record(halves, make(TASK, num_envs=4, seed=0), 800, generator=Streams(0)["data"], facts={})
    rows = data.transitions
    away = (rows.action - expert(rows.observation)).abs().mean(-1)
    left = rows.observation[:, 0] < 0
    assert away[left].mean() < 1.5 * NOISE and away[~left].mean() > 3 * NOISE
    assert 0.1 < left.float().mean() < 0.9 and torch.isnan(rows.sampler_logp).all()
