"""Worlds whose task is hidden: what a task is, when it changes, which are held out, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.tasks.control.environments import make
from rheostat.tasks.control.hidden_tasks import Darkroom, KeysAndDoors

UP, DOWN, LEFT, RIGHT, STAY = range(5)


def test_the_sizes_of_the_paper() -> None:
    ten, six = Darkroom(), Darkroom(size=6, horizon=20)
    assert (ten.tasks, ten.held_out_tasks, ten.horizon) == (80, 20, 100)
    assert (six.tasks, six.held_out_tasks) == (28, 8)
    assert not set(ten._split[True]) & set(ten._split[False])


def test_a_goal_pays_for_every_step_on_it() -> None:
    world = Darkroom(2, size=3, horizon=4)
    world.reset(seed=0)
    world.task = np.array([1, 8])
    rewards, cut = [], []
    for action in (RIGHT, STAY, RIGHT, STAY):
        _, reward, over, ended, info = world.step([action, action])
        rewards.append(reward.tolist())
        cut.append(ended.tolist())
        assert not over.any() and info["episode_ended"].tolist() == ended.tolist()
    assert rewards == [[1, 0], [1, 0], [0, 0], [0, 0]] and cut == [[False] * 2] * 3 + [[True] * 2]
    assert world.position.tolist() == [[0, 0], [0, 0]]
    assert info["final_obs"][0].tolist() == [1, 0, 0, 0, 0, 1]


def test_walls_stop() -> None:
    world = Darkroom(1, size=2, horizon=9)
    world.reset(seed=0)
    for action, place in ((UP, [0, 0]), (LEFT, [0, 0]), (DOWN, [1, 0]), (DOWN, [1, 0]), (RIGHT, [1, 1]), (RIGHT, [1, 1])):
        world.step([action])
        assert world.position.tolist() == [place]


def test_a_key_comes_before_its_door_and_the_door_ends_the_episode() -> None:
    world = KeysAndDoors(1, size=2, horizon=9)
    world.reset(seed=0)
    world.task = np.array([1 * 3 + 2])  # key in cell 1, door in the third of the other cells: cell 3
    outcomes = []
    for action in (DOWN, RIGHT, UP, DOWN):
        observation, reward, over, _, _ = world.step([action])
        outcomes.append((float(reward[0]), bool(over[0]), float(observation[0, -1])))
    assert outcomes == [(0, False, 0), (0, False, 0), (1, False, 1), (1, True, 0)]
    pairs = set()
    for task in range(world.count_tasks()):
        key, door = divmod(task, 3)
        pairs.add((key, door + (door >= key)))
    assert len(pairs) == 12 and all(key != door for key, door in pairs)


@pytest.mark.parametrize("name", ["darkroom", "keys-and-doors"])
def test_a_task_stays_until_the_next_seeded_reset(name: str) -> None:
    worlds = make(name, num_envs=6, seed=5, size=4, horizon=3)
    vector = worlds._envs.vector  # type: ignore[union-attr]
    worlds.reset()
    before = vector.task.copy()
    for _ in range(7):
        worlds.step(torch.full((6,), STAY))
    worlds.reset()
    assert (vector.task == before).all()
    worlds.restart(900)
    assert not (vector.task == before).all()
    worlds.restart(5)
    assert (vector.task == before).all()
    fewer = make(name, num_envs=2, seed=8, size=4, horizon=3)
    fewer.reset()
    assert (fewer._envs.vector.task == before[3:5]).all()  # type: ignore[union-attr]


def test_held_out_tasks_are_drawn_only_when_asked_for() -> None:
    worlds = make("darkroom", num_envs=200, seed=0, size=4)
    vector = worlds._envs.vector  # type: ignore[union-attr]
    worlds.reset()
    assert set(vector.task) == set(vector._split[False])
    worlds.hold_out()
    worlds.restart(1)
    assert set(vector.task) == set(vector._split[True])


def test_a_trial_can_be_an_episode() -> None:
    world = Darkroom(3, size=4, horizon=2, trial_episodes=3)
    assert world.horizon == 6
    observation, _ = world.reset(seed=4)
    assert observation[:, -1].tolist() == [1, 1, 1]  # an episode begins
    task = world.task.copy()
    world.task[:] = 1  # beside the corner
    for t in range(6):
        observation, reward, over, cut, info = world.step([RIGHT if t % 2 == 0 else STAY] * 3)
        assert info["episode_ended"].all() == (t % 2 == 1) and cut.all() == (t == 5) and not over.any()
        assert reward.tolist() == [1, 1, 1]
        if t < 5:
            assert observation[:, -2].tolist() == [1, 1, 1] and observation[:, -1].all() == (t % 2 == 1)
            assert observation[0, 8:13].tolist() == ([0, 0, 0, 1, 0] if t % 2 == 0 else [0] * 5)
    assert info["final_obs"][:, -2].tolist() == [1, 1, 1] and observation[:, -2].tolist() == [0, 0, 0]
    drawn = {tuple(world.task)}
    for _ in range(18):
        world.step([STAY] * 3)
        drawn.add(tuple(world.task))
    assert len(drawn) > 1 and task.shape == (3,)


@pytest.mark.parametrize("trial_episodes", [0, 2])
@pytest.mark.parametrize("name", ["darkroom", "keys-and-doors"])
def test_it_is_saved_whole(name: str, trial_episodes: int) -> None:
    one = make(name, num_envs=3, seed=2, size=3, horizon=4, trial_episodes=trial_episodes)
    chance = torch.Generator().manual_seed(0)
    one.reset()
    for _ in range(5):
        one.step(torch.randint(5, (3,), generator=chance))
    other = make(name, num_envs=3, seed=77, size=3, horizon=4, trial_episodes=trial_episodes)
    other.load_state_dict(one.state_dict())
    for _ in range(15):
        action = torch.randint(5, (3,), generator=chance)
        mine, theirs = one.step(action), other.step(action)
        assert torch.equal(mine.observation, theirs.observation) and torch.equal(mine.reward, theirs.reward)


def test_what_is_refused() -> None:
    with pytest.raises(RheostatError, match="no two cells for a key and a door"):
        make("keys-and-doors", num_envs=1, seed=0, size=1)
    with pytest.raises(RheostatError, match="horizon is 0; it must be at least 1"):
        make("darkroom", num_envs=1, seed=0, horizon=0)
    with pytest.raises(RheostatError, match="Gymnasium could not make rheostat/Darkroom-v0 with options"):
        make("darkroom", num_envs=1, seed=0, width=3)
    with pytest.raises(RheostatError, match="Distractors stand in single environments"):
        make("darkroom", num_envs=1, seed=0, distractors=2)
    assert make("darkroom", num_envs=1, seed=0, size=1).facts.tasks == 1


def test_how_long_episodes_may_be() -> None:
    assert make("darkroom", num_envs=1, seed=0, horizon=7).facts.longest_episode == 7
    assert make("CartPole-v1", num_envs=1, seed=0, backend="gymnasium").facts.longest_episode == 500
    assert make("MiniGrid-MemoryS7-v0", num_envs=1, seed=0).facts.longest_episode == 245
    assert make("CartPole-v1", num_envs=1, seed=0, backend="gymnasium").facts.tasks is None
