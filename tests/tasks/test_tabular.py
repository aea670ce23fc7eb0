"""The tabular worlds of PROPS, as environments and as batches."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.tasks.control import make
from rheostat.tasks.control.discrete2d import Discrete2DBatch
from rheostat.tasks.control.gridworld import grid_world
from rheostat.tasks.control.tabular import TabularBatch, TabularMDP
from rheostat.tasks.control.two_step import two_step

WORLDS = {
    "rheostat/GridWorld5x5-v0": grid_world(5, limit=50),
    "rheostat/GridWorld8x8-v0": grid_world(8, limit=30),
    "rheostat/TwoStep-v0": two_step(),
}
UP, DOWN, LEFT, RIGHT = range(4)


def test_the_grid_has_walls_and_a_goal() -> None:
    world = grid_world(8)
    assert (world.num_states, world.num_actions) == (64, 4)
    assert world.next_state[0].tolist() == [0, 8, 0, 1]
    torch.testing.assert_close(world.reward[0], torch.tensor([-1.0, -0.1, -1.0, -0.1]))
    assert world.next_state[62, RIGHT] == 63 and world.ends[62, RIGHT] and world.reward[62, RIGHT] == 1.0
    assert world.next_state[55, DOWN] == 63 and world.ends[55, DOWN] and world.reward[55, DOWN] == 1.0
    assert world.ends.sum() == 2
    with pytest.raises(RheostatError, match="2 x 2"):
        grid_world(1)


def test_continuing_probabilities_are_zero_where_a_move_ends_the_episode() -> None:
    world = grid_world(4)
    transition = world.transition()
    assert transition.shape == (16, 4, 16)
    assert torch.equal(transition.sum(-1), (~world.ends).double())
    assert transition[0, RIGHT, 1] == 1.0


def test_the_shortest_walk_through_the_8x8_grid() -> None:
    environments = make("rheostat/GridWorld8x8-v0", num_envs=1, seed=0)
    observation = environments.reset()
    assert observation.shape == (1, 64) and observation[0].argmax() == 0
    rewards = []
    for action in [RIGHT] * 7 + [DOWN] * 7:
        step = environments.step(torch.tensor([action]))
        rewards.append(step.reward.item())
    assert rewards == pytest.approx([-0.1] * 13 + [1.0])
    assert step.terminated.item() and not step.truncated.item() and step.next_observation[0].argmax() == 63


@pytest.mark.parametrize(
    ("task", "limit"), [("rheostat/GridWorld5x5-v0", 50), ("rheostat/GridWorld8x8-v0", 30), ("rheostat/Discrete2D-v0", 50)]
)
def test_episodes_are_cut_at_the_limit(task: str, limit: int) -> None:
    environments = make(task, num_envs=1, seed=0)
    environments.reset()
    steps = [environments.step(torch.tensor([t % 2])) for t in range(limit)]  # up and down; or left and right on the spot
    assert steps[-1].truncated.item() and not any((step.truncated | step.terminated).item() for step in steps[:-1])


@pytest.mark.parametrize(("first", "second", "value"), [(0, 0, 2.0), (0, 1, 0.5), (1, 0, 1.0), (1, 1, 1.0)])
def test_two_step_pays_at_the_leaves(first: int, second: int, value: float) -> None:
    environments = make("rheostat/TwoStep-v0", num_envs=1, seed=0)
    environments.reset()
    root, leaf = environments.step(torch.tensor([first])), environments.step(torch.tensor([second]))
    assert (root.reward.item(), leaf.reward.item()) == (0.0, value)
    assert not root.terminated.item() and leaf.terminated.item()
    assert root.next_observation[0].tolist() == [0.0, float(first == 0), float(first == 1)]


@pytest.mark.parametrize("task", list(WORLDS))
def test_the_batch_and_the_environment_are_the_same_world(task: str) -> None:
    """From equal states equal moves follow; episodes are compared one by one because only the environment spends a row on a reset."""
    world = WORLDS[task]
    environments, batch = make(task, num_envs=1, seed=0), TabularBatch(world, 1, torch.Generator().manual_seed(0))
    observation = environments.reset()
    generator = torch.Generator().manual_seed(1)
    endings = 0
    for _ in range(300):
        action = torch.randint(world.num_actions, (1,), generator=generator)
        step, other = environments.step(action), batch.step(action)
        assert observation.argmax() == other.state and step.next_observation.argmax() == other.next_state
        for field in ("reward", "terminated", "truncated"):
            assert torch.equal(getattr(step, field), getattr(other, field)), field
        observation = step.observation
        if step.terminated | step.truncated:
            endings += 1
            observation = environments.step(action).observation
        assert observation.argmax() == batch.state
    assert endings >= 3


def test_first_states_follow_their_distribution() -> None:
    start = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    world = dataclasses.replace(two_step(), start=start)
    batch = TabularBatch(world, 30_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch.state.bincount(minlength=3).double() / 30_000, start, atol=0.01, rtol=0)

    from rheostat.tasks.control.tabular import TabularEnvironment

    environments = make(TabularEnvironment(world), num_envs=1, seed=0)
    counts = torch.stack([environments.reset()[0] for _ in range(2000)]).mean(0)
    torch.testing.assert_close(counts.double(), start, atol=0.04, rtol=0)


def test_batches_resume_exactly() -> None:
    for make_batch, choices in (
        (lambda generator: TabularBatch(grid_world(4, limit=9), 5, generator), 4),
        (lambda generator: Discrete2DBatch(5, generator, headings=6), 6),
    ):
        generator = torch.Generator().manual_seed(0)
        first = make_batch(generator)
        moves = torch.randint(choices, (80, 5), generator=torch.Generator().manual_seed(1))
        for move in moves[:40]:
            first.step(move)
        saved, drawn = first.state_dict(), generator.get_state()
        for move in moves[40:]:
            first.step(move)
        again = torch.Generator()
        second = make_batch(again)
        second.load_state_dict(saved)
        again.set_state(drawn)
        for move in moves[40:]:
            second.step(move)
        assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


def test_a_tabular_batch_needs_environments() -> None:
    with pytest.raises(RheostatError, match="num_envs"):
        TabularBatch(two_step(), 0, torch.Generator())


def sampling_error(world: TabularMDP, seeds: int, steps: int) -> float:
    """Mean over seeds of the on-policy sampling error of a random softmax policy with logits N(0, 0.5^2)."""
    generator = torch.Generator().manual_seed(0)
    log_policy = (0.5 * torch.randn(seeds, world.num_states, world.num_actions, generator=generator)).log_softmax(-1).double()
    batch, rows = TabularBatch(world, seeds, generator), torch.arange(seeds)
    counts = torch.zeros_like(log_policy)
    for _ in range(steps):
        state = batch.state
        action = torch.multinomial(log_policy[rows, state].exp(), 1, generator=generator)[:, 0]
        batch.step(action)
        counts[rows, state, action] += 1
    ratio = torch.where(counts > 0, (counts / counts.sum(-1, keepdim=True)).log() - log_policy, 0.0)
    return float((counts * ratio).sum((-1, -2)).mean() / steps)


@pytest.mark.parametrize(("steps", "reported"), [(512, 0.073), (1024, 0.036)])
def test_on_policy_sampling_error_is_the_reported_one(steps: int, reported: float) -> None:
    assert sampling_error(WORLDS["rheostat/GridWorld5x5-v0"], 100, steps) == pytest.approx(reported, rel=0.1)


def test_discrete2d_walks_and_pays_its_distance() -> None:
    environments = make("rheostat/Discrete2D-v0", num_envs=4, seed=0, headings=4)
    observation = environments.reset()
    step = environments.step(torch.arange(4))
    moves = 0.05 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    position = (observation[:, :2] + moves).clamp(-1.0, 1.0)
    torch.testing.assert_close(step.next_observation[:, :2], position)
    assert torch.equal(step.next_observation[:, 2:], observation[:, 2:])
    torch.testing.assert_close(step.reward, -(position - observation[:, 2:]).norm(dim=1))
    with pytest.raises(RheostatError, match="2 headings"):
        make("rheostat/Discrete2D-v0", num_envs=1, seed=0, headings=1)


def test_every_episode_of_a_batch_has_the_whole_limit() -> None:
    batch = Discrete2DBatch(20, torch.Generator().manual_seed(0), headings=2)
    length, lengths = torch.zeros(20, dtype=torch.int64), []
    for t in range(400):
        _, _, terminated, truncated = batch.step(torch.full((20,), t % 2))
        length += 1
        lengths += length[truncated].tolist()
        length[terminated | truncated] = 0
    assert len(lengths) > 100 and set(lengths) == {50}


def test_discrete2d_ends_near_the_goal_in_both_forms() -> None:
    environments = make("rheostat/Discrete2D100-v0", num_envs=8, seed=0)
    batch = Discrete2DBatch(8, torch.Generator().manual_seed(0))
    observation = environments.reset()
    batch.position, batch.goal = observation[:, :2].double(), observation[:, 2:].double()
    alive = torch.ones(8, dtype=torch.bool)
    for _ in range(50):
        towards = observation[:, 2:] - observation[:, :2]
        heading = (torch.atan2(towards[:, 1], towards[:, 0]) * 100 / (2 * torch.pi)).round().long() % 100
        step, (successor, reward, terminated, truncated) = environments.step(heading), batch.step(heading)
        torch.testing.assert_close(step.next_observation[alive], successor[alive], atol=1e-5, rtol=0)
        torch.testing.assert_close(step.reward[alive], reward[alive], atol=1e-5, rtol=0)
        assert torch.equal(step.terminated[alive], terminated[alive]) and torch.equal(step.truncated[alive], truncated[alive])
        assert (step.reward[step.terminated] > -0.05).all() and (step.reward[alive & ~step.terminated] <= -0.05).all()
        alive &= ~(step.terminated | step.truncated)
        observation = step.observation
    assert not alive.any()
