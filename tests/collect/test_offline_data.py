"""Recording data sets: which episodes are kept, what their log-probabilities are, and that they are a task's."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rheostat.collect.control.offline_data import Piece, in_rounds, pieces_of, record, replayed, uniform
from rheostat.collect.control.stepping import Collector, Draw
from rheostat.errors import RheostatError
from rheostat.tasks.control.environments import Environments, make
from rheostat.trajectories import Trajectories


class Counting(gymnasium.Env):
    """Observation: the number of the episode and the step. Environment k's episodes last k, k + 1, ... steps, or never end (0)."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, first: int) -> None:
        self.first, self.episode = first, -1

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.step_count = self.episode + 1, 0
        return self.seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.step_count += 1
        ended = bool(self.first) and self.step_count == self.first + self.episode
        return self.seen(), 1.0, ended, False, {}

    def seen(self) -> np.ndarray:
        return np.array([self.episode, self.step_count], np.float32)


def counting(*first: int) -> Environments:
    vector = gymnasium.vector.SyncVectorEnv([lambda k=k: Counting(k) for k in first])  # type: ignore[misc]
    return make(vector, num_envs=len(first), seed=0)


def wide(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws that leave the bounds half of the time."""
    action = 4 * torch.rand(len(observation), 1, generator=generator) - 2
    return action, torch.full((len(observation),), -math.log(4))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 100])
def test_episodes_are_taken_in_rounds_whatever_their_length(steps: int) -> None:
    """Environments with episodes of 2, 3, 4, ... and 5, 6, 7, ... steps: one of each in turn."""
    data = record(wide, counting(2, 5), steps, generator=generator(), facts={})
    assert len(data) == steps
    expected, left = [], steps
    for number in range(100):
        for length in (2 + number, 5 + number):
            if left > 0:
                expected.append(min(length, left))
                left -= length
    assert data.lengths.tolist() == expected
    assert int(data.cut.sum()) == (left < 0) and not data.cut[:-1].any()
    assert data.transitions.truncated.nonzero().flatten().tolist() == ([steps - 1] if left < 0 else [])
    assert data.transitions.terminated[data.breaks][: len(expected) - int(left < 0)].all()


def test_a_world_without_an_end_gives_one_cut_episode() -> None:
    data = record(wide, counting(0, 0), 30, generator=generator(), facts={})
    assert data.lengths.tolist() == [30] and data.cut.tolist() == [True]


def test_the_stored_action_is_what_the_world_executed_and_the_draw_is_kept() -> None:
    data = record(wide, counting(3), 50, generator=generator(), facts={})
    assert data.drawn_action is not None and (data.drawn_action.abs() > 1).any()
    assert torch.equal(data.transitions.action, data.drawn_action.clamp(-1, 1))
    narrow: Draw = lambda observation, generator: (torch.zeros(len(observation), 1), torch.zeros(len(observation)))  # noqa: E731
    assert record(narrow, counting(3), 5, generator=generator(), facts={}).drawn_action is None


def test_rounds_stop_at_the_first_episode_under_way() -> None:
    def piece(row: int, first: int, length: int, ended: bool) -> Piece:
        return Piece(row, torch.arange(first, first + length), ended)

    pieces = [[piece(0, 0, 2, True), piece(0, 2, 2, True), piece(0, 4, 1, False)], [piece(1, 0, 3, True), piece(1, 3, 2, False)]]
    assert [(each.row, len(each.steps), each.ended) for each in in_rounds(pieces)] == [
        (0, 2, True),
        (1, 3, True),
        (0, 2, True),
        (1, 2, False),
    ]
    assert [each.row for each in in_rounds([pieces[0], pieces[1][:1]])] == [0, 1, 0]  # nothing is known of the next one of row 1
    assert in_rounds([[], []]) == []


def test_pieces_leave_out_reset_rows() -> None:
    flags = torch.zeros(1, 6, dtype=torch.bool)
    terminated, mask = flags.clone(), torch.ones_like(flags)
    terminated[0, 2] = True
    mask[0, 3] = False
    rows = Trajectories(
        action=torch.zeros(1, 6, 1),
        mask=mask,
        reward=torch.zeros(1, 6),
        terminated=terminated,
        truncated=flags,
        sampler_logp=torch.zeros(1, 6),
        batch_size=[1, 6],
    )
    assert [(piece.steps.tolist(), piece.ended) for piece in pieces_of(rows)[0]] == [([0, 1, 2], True), ([4, 5], False)]


def test_training_data_are_thinned_by_whole_episodes_in_the_order_of_time() -> None:
    environments = counting(2, 5)
    collector = Collector(environments)
    blocks = [collector.collect(wide, 12, generator=generator(), version=version) for version in range(3)]
    everything = replayed(blocks, None, environments, generator=generator(), facts={})
    assert len(everything) == sum(block.count() for block in blocks)
    assert (everything.transitions.version.diff() < 0).sum() <= len(everything.episodes)  # environments overlap, time does not run back
    some = replayed(blocks, 20, environments, generator=generator(), facts={})
    assert len(some) == 20 and int(some.cut.sum()) <= 2
    known = {tuple(row) for row in everything.transitions.observation.tolist()}
    assert {tuple(row) for row in some.transitions.observation.tolist()} <= known
    other = replayed(blocks, 20, environments, generator=torch.Generator().manual_seed(5), facts={})
    assert other.digest != some.digest


@pytest.mark.parametrize(
    ("space", "log_prob"),
    [
        (spaces.Box(-2.0, 2.0, (1,), np.float32), -math.log(4)),
        (spaces.Box(np.array([-1, 0], np.float32), np.array([1, 0.5], np.float32)), 0.0),
        (spaces.Discrete(4), -math.log(4)),
        (spaces.MultiDiscrete([2, 3]), -math.log(6)),
        (spaces.MultiBinary(3), -math.log(8)),
    ],
)
def test_uniform_actions_cover_their_space_with_the_right_density(space: spaces.Space, log_prob: float) -> None:
    action, logp = uniform(space)(torch.zeros(4000, 1), generator())
    assert action.shape == (4000, *space.shape) and torch.allclose(logp, torch.full((4000,), log_prob), atol=1e-6)
    if isinstance(space, spaces.Box):
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        assert (action >= low).all() and (action <= high).all()
        assert torch.allclose(action.mean(0), (low + high) / 2, atol=0.05 * float((high - low).max()))
    else:
        sizes = [space.n] if isinstance(space, spaces.Discrete) else list(getattr(space, "nvec", [2, 2, 2]))
        for column, size in zip(action.reshape(4000, -1).T, sizes, strict=True):
            shares = torch.bincount(column, minlength=int(size)) / 4000
            assert len(shares) == size and torch.allclose(shares, torch.full_like(shares, 1 / int(size)), atol=0.05)


def test_random_actions_without_bounds_are_refused() -> None:
    with pytest.raises(RheostatError, match="Random actions need bounds"):
        uniform(spaces.Box(-np.inf, np.inf, (1,)))
