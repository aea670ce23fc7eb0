"""The maze of four rooms: walls, doors, rewards, and exact continuation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.tasks.control.environments import make
from rheostat.tasks.control.point_maze import REACHED, STEP, PointMaze, moved


@pytest.mark.parametrize(
    ("start", "action", "end"),
    [
        ((0.3, 0.3), (1.0, -1.0), (0.4, 0.2)),
        ((0.95, 0.3), (1.0, 0.0), (1.0, 0.3)),  # the border
        ((0.05, 0.2), (-1.0, 0.5), (0.05, 0.25)),  # a wall, along which it goes on
        ((0.05, 0.5), (-1.0, 0.0), (-0.05, 0.5)),  # a door
        ((-0.5, -0.05), (0.0, 1.0), (-0.5, 0.05)),
    ],
)
def test_a_point_moves(start: tuple[float, float], action: tuple[float, float], end: tuple[float, float]) -> None:
    np.testing.assert_allclose(moved(np.array([start]), np.array([action]))[0], end, atol=1e-12)


def test_no_point_crosses_a_wall_outside_of_a_door() -> None:
    chance = np.random.default_rng(0)
    position = chance.uniform(-1, 1, (500, 2))
    for _ in range(200):
        following = moved(position, chance.uniform(-1, 1, (500, 2)))
        assert np.abs(following).max() <= 1 and np.abs(following - position).max() <= STEP + 1e-12
        for axis in (0, 1):
            crossed = (position[:, axis] > 0) != (following[:, axis] > 0)
            place = np.where(axis == 0, position[:, 1], following[:, 0])[crossed]  # along x first, then along y
            assert (np.abs(np.abs(place) - 0.5) < 0.15).all()
        position = following


def test_reward_is_near_the_goal_and_episodes_are_cut() -> None:
    world = PointMaze(4, horizon=3, goal=(0.2, -0.3))
    world.reset(seed=1)
    world.position = np.array([[0.2, -0.3], [0.2, -0.3 - REACHED - 0.01], [0.2, 0.3], [0.3, -0.3]])
    nothing = np.zeros((4, 2))
    observation, reward, terminated, truncated, info = world.step(nothing)
    assert reward.tolist() == [1, 0, 0, 1] and not terminated.any() and not truncated.any()
    np.testing.assert_array_equal(observation, info["final_obs"])
    world.step(nothing)
    observation, _, terminated, truncated, info = world.step(nothing)
    assert truncated.all() and not terminated.any() and (info["final_obs"] != observation).all()


def test_noise_stands_beside_the_position() -> None:
    worlds = make("point-maze", num_envs=2, seed=3, noise=3)
    first = worlds.reset()
    second = worlds.step(torch.zeros(2, 2)).observation
    assert first.shape == (2, 5) and torch.equal(first[:, :2], second[:, :2]) and (first[:, 2:] != second[:, 2:]).all()


def test_it_continues_where_it_was_saved() -> None:
    worlds = make("point-maze", num_envs=3, seed=5, horizon=4, noise=1)
    worlds.reset()
    actions = torch.rand(9, 3, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for action in actions[:3]:
        worlds.step(action)
    state = worlds.state_dict()
    expected = [worlds.step(action).observation for action in actions[3:]]
    other = make("point-maze", num_envs=3, seed=99, horizon=4, noise=1)
    other.reset()
    other.load_state_dict(state)
    assert all(torch.equal(other.step(action).observation, each) for action, each in zip(actions[3:], expected, strict=True))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"goal": (0.5,)}, "goal is"),
        ({"goal": (2.0, 0.0)}, "two numbers between -1 and 1"),
        ({"horizon": 0}, "horizon"),
        ({"noise": -1}, "noise"),
    ],
)
def test_what_makes_no_maze(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        PointMaze(1, **options)  # type: ignore[arg-type]
