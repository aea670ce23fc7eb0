"""Counts and order of a mixed batch, and what can never be supplied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.buffers.mixing import interleave, mixed_counts
from rheostat.errors import RheostatError
from rheostat.trajectories import Source, Transitions


@given(st.integers(2, 500), st.floats(0.0, 0.7))
def test_counts_fill_the_batch(size: int, share: float) -> None:
    fresh, stale = mixed_counts(size, share)
    assert fresh + stale == size and fresh >= 1 and abs(stale - share * size) <= 0.5


def test_refusals() -> None:
    assert mixed_counts(16, 0.4, window=1) == (10, 6) and mixed_counts(16, 0.0, window=0) == (16, 0)
    with pytest.raises(RheostatError, match=r"A stale share of 1\.0 leaves nothing fresh"):
        mixed_counts(16, 1.0)
    with pytest.raises(RheostatError, match=r"A stale share of 0\.9 of a batch of 4 leaves nothing fresh"):
        mixed_counts(4, 0.9)
    with pytest.raises(RheostatError, match="A window of 0 batches holds nothing stale"):
        mixed_counts(16, 0.4, window=0)
    with pytest.raises(RheostatError, match="asks for 13 of a batch of 16, but a window of 2 batches with 3 fresh ones each holds only 6"):
        mixed_counts(16, 0.8, window=2)
    assert mixed_counts(16, 0.8, window=5) == (3, 13)


def rows(size: int, source: Source, **fields: Any) -> Transitions:
    number = torch.arange(size, dtype=torch.float32)
    flag = torch.zeros(size, dtype=torch.bool)
    return Transitions(
        **{
            "action": number[:, None],
            "reward": number,
            "terminated": flag,
            "truncated": flag,
            "sampler_logp": number,
            "source": torch.full((size,), int(source)),
            **fields,
        },
        batch_size=[size],
    )


def test_even_rows_are_offline_and_odd_rows_online() -> None:
    batch = interleave(rows(3, Source.OFFLINE), rows(3, Source.REPLAY))
    assert batch.source.tolist() == [Source.OFFLINE, Source.REPLAY] * 3
    assert batch.reward.tolist() == [0, 0, 1, 1, 2, 2] and batch.action[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


@given(offline=st.integers(0, 40), online=st.integers(0, 40), start=st.integers(0, 79), length=st.integers(1, 80))
def test_every_slice_holds_both_sources_in_proportion(offline: int, online: int, start: int, length: int) -> None:
    if not offline + online:
        return
    batch = interleave(rows(offline, Source.OFFLINE), rows(online, Source.REPLAY))
    assert len(batch) == offline + online
    for source, size in ((Source.OFFLINE, offline), (Source.REPLAY, online)):
        assert batch.reward[batch.source == source].tolist() == list(range(size))  # none lost, none repeated, in order
    part = batch.source[start : start + length]
    assert abs((part == Source.OFFLINE).sum().item() - len(part) * offline / len(batch)) < 1


def test_a_missing_weight_is_one_and_other_missing_fields_are_left_out() -> None:
    batch = interleave(rows(2, Source.OFFLINE), rows(2, Source.REPLAY, weight=torch.tensor([0.5, 0.25]), discount=torch.ones(2)))
    assert batch.weight.tolist() == [1.0, 0.5, 1.0, 0.25] and batch.discount is None
    assert interleave(rows(2, Source.OFFLINE), rows(2, Source.REPLAY)).weight is None


def test_rows_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(RheostatError, match=r"observation has the shape \[4\] and \[5\]"):
        interleave(rows(2, Source.OFFLINE, observation=torch.zeros(2, 4)), rows(2, Source.REPLAY, observation=torch.zeros(2, 5)))
