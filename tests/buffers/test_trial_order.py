"""The order of things in a trial: schedules, permutations, and what came before a step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.buffers.trial_order import Due, last_step, of_last_step, permuted_episodes, shuffled_places, update_schedule
from rheostat.credit.returns import gae
from rheostat.errors import RheostatError


def test_partial_updates_and_full_ones() -> None:
    assert update_schedule(12, 4, 2) == [Due(3, False, 0), Due(6, False, 0), Due(9, False, 6), Due(12, True, 0)]
    assert update_schedule(12, 4, 1)[-1] == Due(12, True, 0)
    assert update_schedule(12, 4, 0)[-1] == Due(12, True, 9)
    with pytest.raises(RheostatError, match="full_updates 3 must divide updates_per_trial 4"):
        update_schedule(12, 4, 3)
    with pytest.raises(RheostatError, match="5 updates do not divide the 12 steps"):
        update_schedule(12, 5, 1)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_shuffling_keeps_every_episode_whole_and_its_advantages(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    over = data.draw(st.booleans())
    steps = sum(lengths)
    begins, done = torch.zeros(1, steps, dtype=torch.bool), torch.zeros(1, steps, dtype=torch.bool)
    at = 0
    for length in lengths:
        begins[0, at] = True
        at += length
        done[0, at - 1] = True
    done[0, -1] = over
    chance = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    places = permuted_episodes(begins, torch.tensor([over]), chance)[0]
    assert sorted(places.tolist()) == list(range(steps))
    if not over:
        assert places[-lengths[-1] :].tolist() == list(range(steps - lengths[-1], steps))
    starts = begins[0, places].nonzero().flatten().tolist()
    assert len(starts) == len(lengths)
    for start, end in zip(starts, [*starts[1:], steps], strict=True):  # whole, and in order
        assert places[start:end].tolist() == list(range(int(places[start]), int(places[start]) + end - start))
    reward, value, beyond = torch.randn(1, steps), torch.randn(1, steps), torch.randn(1, 1)

    def advantages(order: torch.Tensor) -> torch.Tensor:
        there = value[:, order]
        following = torch.cat([there[:, 1:], beyond], 1)
        no = torch.zeros(1, steps, dtype=torch.bool)
        found, _ = gae(reward[:, order], there, following, no, done[:, order], gamma=0.9, lam=0.8, bootstrap_on_truncation=False)
        return found

    assert torch.allclose(advantages(torch.arange(steps))[:, places], advantages(places), atol=1e-6)


def test_places_of_a_small_trial() -> None:
    assert shuffled_places([0, 2, 3], 5, [1, 0]) == [2, 0, 1, 3, 4]
    assert shuffled_places([0, 2, 3], 3, [0, 1]) == [0, 1, 2]


def test_what_came_before_skips_rows_between_episodes() -> None:
    seen = torch.tensor([[True, True, False, True]])
    last = last_step(seen)
    assert last.tolist() == [[-1, 0, 1, 1, 3]]
    assert of_last_step(torch.tensor([[5.0, 6.0, 7.0, 8.0]]), last).tolist() == [[0, 5, 6, 6, 8]]
    assert of_last_step(torch.ones(1, 4, 2), last).shape == (1, 5, 2)
