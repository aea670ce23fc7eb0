"""Worlds with two equally good answers: what they pay, how the point moves, and exact resume."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rheostat.tasks.control import make
from rheostat.tasks.control.two_optima import HALF_HEIGHT, LIMIT, PEAK, pay, side
from tests.tasks.test_state import require_exact_resume

TASKS = ("rheostat/TwoBumps-v0", "rheostat/JumpingBump-v0", "rheostat/TwoGoals-v0")


@pytest.mark.parametrize("task", TASKS)
def test_they_resume_exactly(task: str) -> None:
    first, second = make(task, num_envs=3, seed=5), make(task, num_envs=3, seed=99)
    require_exact_resume(first, second)
    assert first.can_save


def test_both_bumps_pay_and_the_middle_does_not() -> None:
    worlds = make("rheostat/TwoBumps-v0", num_envs=5, seed=0)
    assert torch.equal(worlds.reset(), torch.zeros(5, 1))
    beside = PEAK + HALF_HEIGHT / math.sqrt(2)
    step = worlds.step(torch.tensor([[PEAK, PEAK], [-PEAK, -PEAK], [beside, beside], [-PEAK, PEAK], [0.0, 0.0]]))
    torch.testing.assert_close(step.reward, torch.tensor([1.0, 1.0, 0.5, math.exp(-8), math.exp(-4)]), atol=1e-4, rtol=0)
    assert step.terminated.all() and not step.truncated.any()


def test_the_bump_jumps_with_the_sign_of_the_context() -> None:
    worlds = make("rheostat/JumpingBump-v0", num_envs=200, seed=0)
    context = worlds.reset()[:, 0]
    assert 0.3 < (context > 0).float().mean() < 0.7
    reward = worlds.step(torch.full((200, 2), PEAK)).reward
    torch.testing.assert_close(reward[context > 0], torch.ones(int((context > 0).sum())))
    assert (reward[context < 0] < 1e-6).all()


def test_the_point_reaches_either_goal_and_stays() -> None:
    worlds = make("rheostat/TwoGoals-v0", num_envs=4, seed=0)
    observation = worlds.reset()
    assert (observation[:, :2].abs() <= 0.1).all() and (observation[:, 2:] == 0).all()
    goal = torch.tensor([[PEAK], [-PEAK], [PEAK], [-PEAK]])
    rewards = []
    for t in range(LIMIT):
        steer = 10 * (goal - observation[:, :2]) - 12 * observation[:, 2:]
        step = worlds.step(steer.clamp(-1, 1))
        observation = step.next_observation
        rewards.append(step.reward)
        assert not step.terminated.any() and bool(step.truncated.all()) == (t == LIMIT - 1)
    assert (torch.stack(rewards).sum(0) > 15).all() and (rewards[-1] > 0.95).all()
    assert torch.equal(observation[:, 0].sign(), goal[:, 0].sign())


def test_walls_stop_the_point() -> None:
    worlds = make("rheostat/TwoGoals-v0", num_envs=1, seed=0)
    worlds.reset()
    for _ in range(20):
        step = worlds.step(torch.tensor([[1.0, 0.0]]))
    x, y, vx, vy = step.next_observation[0].tolist()
    assert x == 1.0 and vx == 0.0 and abs(y) <= 0.1 and vy == 0.0


def test_pay_and_side_of_many_points() -> None:
    points = np.array([[[PEAK, PEAK], [0.0, 0.1]], [[-PEAK, -PEAK], [-0.2, 0.1]]])
    assert side(points).tolist() == [[1.0, 1.0], [-1.0, -1.0]]
    assert pay(points, side(points))[:, 0].tolist() == [1.0, 1.0]
