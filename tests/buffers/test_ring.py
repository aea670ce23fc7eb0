"""What a replay keeps: links, wrapping, cuts, data sets, episodes, types and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.buffers.ring import Ring
from rheostat.errors import RheostatError
from rheostat.trajectories import Source, Trajectories
from tests.buffers.blocks import PlainReplay, data_set, random_block


def observations(ring: Ring) -> list[list[float]]:
    """First number of the observations of every episode."""
    return [ring.columns["observation"][places, 0].tolist() for places in ring.episodes()]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(0, 2**20),
)
def test_the_episode_view_walks_every_step_once_in_order_of_time(
    envs: int, blocks: list[tuple[int, bool]], capacity: int, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    ring, plain, count = Ring(capacity), PlainReplay(capacity, 0.9), 1
    for length, cut in blocks:
        rows = random_block(envs, length, chance, first=count)
        count += envs * length
        for each in (ring, plain):
            each.append(rows)
            if cut:
                each.cut()
    assert len(ring) == len(plain.steps)
    assert observations(ring) == plain.episodes()


def test_how_a_stretch_is_cut_into_blocks_changes_nothing() -> None:
    whole = random_block(3, 12, generator())
    one, other = Ring(30), Ring(30)
    one.append(whole)
    for start, stop in ((0, 1), (1, 1), (1, 5), (5, 12)):
        other.append(whole[:, start:stop])
    assert torch.equal(one.data, other.data) and torch.equal(one.newest, other.newest) and one.total == other.total


def test_a_cut_ends_episodes_and_lets_the_number_of_environments_change() -> None:
    ring = Ring(20)
    ring.append(random_block(2, 3, generator(), ends=0.0, holes=0.0))
    with pytest.raises(RheostatError, match=r"it had 2, this block has 3; call cut\(\) first"):
        ring.append(random_block(3, 2, generator()))
    ring.cut()
    ring.append(random_block(3, 2, generator(), ends=0.0, holes=0.0, first=7))
    assert observations(ring) == [[1, 2, 3], [4, 5, 6], [7, 8], [9, 10], [11, 12]]
    assert ring.columns["truncated"][:12].tolist() == [False] * 4 + [True] * 2 + [False] * 6
    ring.append(random_block(3, 1, generator(), ends=0.0, holes=0.0, first=13))
    assert observations(ring)[2:] == [[7, 8, 13], [9, 10, 14], [11, 12, 15]]


def test_a_cut_does_not_touch_what_has_overwritten_the_newest_step_of_an_environment() -> None:
    rows = random_block(3, 1, generator(), ends=0.0, holes=0.0)
    rows.terminated[2] = True
    ring = Ring(2)
    ring.append(rows)  # the third environment's step lies where the first one's was
    ring.cut()
    assert ring.columns["truncated"].tolist() == [False, True]


def test_a_masked_step_is_not_kept_and_nothing_follows_across_it() -> None:
    rows = random_block(1, 5, generator(), ends=0.0, holes=0.0)
    rows.mask[0, 2] = False
    rows.reward[0, 2] = float("nan")
    ring = Ring(10)
    ring.append(rows)
    assert observations(ring) == [[1, 2], [4, 5]]


def test_a_data_set_lies_in_the_same_ring() -> None:
    ring = Ring(7)
    ring.append_transitions(*data_set([3, 2]))
    ring.append_transitions(*data_set([1], first=6))
    assert observations(ring) == [[1, 2, 3], [4, 5], [6]]
    assert ring.columns["source"][:6].tolist() == [int(Source.OFFLINE)] * 6 and ring.columns["version"][:6].tolist() == [-1] * 6
    assert not ring.columns["truncated"].any()
    ring.append(random_block(1, 3, generator(), ends=0.0, holes=0.0, first=7))
    assert observations(ring) == [[3], [4, 5], [6], [7, 8, 9]]
    assert sorted(ring.columns["source"].tolist()) == [int(Source.REPLAY)] * 3 + [int(Source.OFFLINE)] * 4
    with pytest.raises(RheostatError, match="The data set has 8 steps, but the replay only 7: enlarge its capacity"):
        ring.append_transitions(*data_set([8]))


def test_where_a_data_set_ends_an_episode_nothing_follows_even_without_a_break() -> None:
    rows, breaks = data_set([4])
    rows.terminated[0], rows.truncated[2] = True, True
    ring = Ring(4)
    ring.append_transitions(rows, breaks)
    assert observations(ring) == [[1], [2, 3], [4]]


def test_sources_are_marked_as_replayed_unless_they_are_not_the_run_s_own() -> None:
    rows = random_block(1, 5, generator(), ends=0.0, holes=0.0)
    rows.source = torch.tensor([[Source.FRESH, Source.STALE, Source.REPLAY, Source.EXPERT, Source.OFFLINE]])
    ring = Ring(5)
    ring.append(rows)
    assert ring.columns["source"].tolist() == [Source.REPLAY] * 3 + [Source.EXPERT, Source.OFFLINE]


def test_of_a_block_larger_than_the_ring_the_newest_steps_stay() -> None:
    ring = Ring(5)
    ring.append(random_block(1, 3, generator(), ends=0.0, holes=0.0))
    ring.append(random_block(1, 12, generator(), ends=0.0, holes=0.0, first=4))
    assert observations(ring) == [[11, 12, 13, 14, 15]]
    ring.append(random_block(1, 2, generator(), ends=0.0, holes=0.0, first=16))
    assert observations(ring) == [[13, 14, 15, 16, 17]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64, torch.float32])
def test_observations_keep_their_type_and_shape(dtype: torch.dtype) -> None:
    rows = random_block(2, 3, generator(), ends=0.0, holes=0.0)
    rows.observation = torch.randint(0, 255, (2, 3, 3, 5, 4), generator=generator()).to(dtype)
    rows.next_observation = torch.randint(0, 255, (2, 3, 3, 5, 4), generator=generator()).to(dtype)
    rows.action = torch.arange(6).view(2, 3)
    ring = Ring(6)
    ring.append(rows)
    assert ring.columns["observation"].dtype == dtype and ring.columns["action"].tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(ring.columns["observation"], rows.observation.transpose(0, 1).flatten(0, 1))
    assert torch.equal(ring.columns["next_observation"], rows.next_observation.transpose(0, 1).flatten(0, 1))
    rows.observation.zero_()
    assert ring.columns["observation"].any()  # a copy was stored


def test_floating_point_numbers_of_another_width_are_converted() -> None:
    ring = Ring(6)
    ring.append(random_block(1, 2, generator(), ends=0.0, holes=0.0))
    rows = random_block(1, 2, generator(), ends=0.0, holes=0.0, first=3)
    rows.observation = rows.observation.double()
    ring.append(rows)
    assert ring.columns["observation"][:4, 0].tolist() == [1, 2, 3, 4]


def changed(name: str, change: Callable[[torch.Tensor], Any]) -> Trajectories:
    """Three steps with one field changed."""
    rows = random_block(1, 3, generator(), ends=0.0, holes=0.0)
    setattr(rows, name, change(getattr(rows, name)))
    return rows


def poisoned(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value.view(-1)[-1] = float("nan")
    return value


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed("observation", lambda value: value[..., :1]), r"observations of shape \[2\] .* have \[1\]"),
        (changed("next_observation", lambda value: value.long()), "next_observations .* torch.int64"),
        (changed("action", lambda value: value.squeeze(-1)), r"actions of shape \[1\] .* have \[\]"),
        (changed("reward", lambda value: value.unsqueeze(-1)), r"reward must have the shape \[1, 3\] of the steps, it has \[1, 3, 1\]"),
        (changed("terminated", lambda value: value.unsqueeze(-1)), "terminated must have the shape"),
        (changed("reward", poisoned), "The reward of 1 of 3 steps is not finite, first of step 2 "),
        (changed("reward", lambda value: value / 0), "The reward of 3 of 3 steps is not finite, first of step 0 "),
        (changed("next_observation", poisoned), "The next observation of 1 of 3 steps is not finite"),
        (changed("observation", lambda value: None), "A replay keeps observations and their true successors, and this block has none"),
    ],
)
def test_a_bad_block_is_refused_and_leaves_no_trace(rows: Trajectories, message: str) -> None:
    ring = Ring(10)
    ring.append(random_block(1, 2, generator(), ends=0.0, holes=0.0))
    before = ring.data.clone()
    with pytest.raises(RheostatError, match=message):
        ring.append(rows)
    assert torch.equal(ring.data, before) and ring.total == 2 and ring.newest.tolist() == [1]


def test_large_finite_numbers_whose_sum_overflows_are_kept() -> None:
    ring = Ring(10)
    ring.append(changed("reward", lambda value: torch.full_like(value, 3e38)))
    assert len(ring) == 3


def test_breaks_and_arguments_are_checked() -> None:
    rows, breaks = data_set([3])
    with pytest.raises(RheostatError, match=r"breaks must have the shape \[3\]"):
        Ring(5).append_transitions(rows, breaks[:2])
    with pytest.raises(RheostatError, match="keeps at least 1 step, but its capacity is 0"):
        Ring(0)
    with pytest.raises(RheostatError, match="share between 0 and 1 of the free memory, not 2"):
        Ring(1, memory_share=2.0)


def test_nothing_to_keep_is_no_mistake() -> None:
    ring = Ring(5)
    assert ring.episodes() == []
    ring.cut()
    ring.append(random_block(2, 0, generator()))
    ring.append(random_block(2, 3, generator(), holes=1.1))
    rows, breaks = data_set([1])
    ring.append_transitions(rows[:0], breaks[:0])
    assert len(ring) == 0 and ring.episodes() == []


def test_a_closed_ring_is_empty_and_can_be_used_again() -> None:
    ring = Ring(5)
    ring.append(random_block(1, 3, generator()))
    ring.close()
    assert len(ring) == 0 and not ring.columns
    ring.append(random_block(2, 2, generator(), ends=0.0, holes=0.0))
    assert observations(ring) == [[1, 2], [3, 4]]
