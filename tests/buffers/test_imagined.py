"""Imagined steps: how long they are kept, how they are drawn, that they resume exactly, and how much memory they may take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheostat.buffers import imagined
from rheostat.buffers.imagined import ImaginedSteps, require_memory
from rheostat.errors import RheostatError


def steps(first: int, count: int) -> dict[str, Tensor]:
    """Steps whose reward is their number; every third one ends."""
    number = torch.arange(first, first + count)
    no = torch.zeros(count, dtype=torch.bool)
    return {
        "observation": number.float().unsqueeze(-1),
        "action": torch.zeros(count, 1),
        "reward": number.float(),
        "next_observation": number.float().unsqueeze(-1) + 1,
        "terminated": number % 3 == 0,
        "truncated": no,
        "sampler_logp": torch.zeros(count),
        "source": torch.full((count,), 7),
        "version": torch.full((count,), first),
    }


def test_the_oldest_round_goes_when_there_are_too_many() -> None:
    store = ImaginedSteps(2, 0.9)
    for first, count in ((0, 4), (4, 1), (5, 3)):
        store.append(steps(first, count))
    assert len(store) == 4 and store.columns["reward"].tolist() == [4.0, 5.0, 6.0, 7.0]


def test_batches_hold_kept_steps_with_their_discounts() -> None:
    store = ImaginedSteps(1, 0.9)
    store.append(steps(0, 10))
    rows = store.sample(500, torch.Generator().manual_seed(0))
    assert set(rows.reward.tolist()) == set(map(float, range(10)))
    assert torch.equal(rows.discount, 0.9 * (rows.reward % 3 != 0)) and torch.equal(rows.index, rows.reward.long())
    assert torch.equal(rows.next_observation, rows.observation + 1)


def test_it_resumes_exactly() -> None:
    store, again = ImaginedSteps(2, 0.9), ImaginedSteps(2, 0.9)
    store.append(steps(0, 4))
    store.append(steps(4, 2))
    again.load_state_dict(store.state_dict())
    for each in (store, again):
        each.append(steps(6, 2))
    assert store.lengths == again.lengths == [2, 2]
    assert all(torch.equal(column, again.columns[name]) for name, column in store.columns.items())


def test_nothing_imagined_is_said() -> None:
    with pytest.raises(RheostatError, match="No step has been imagined"):
        ImaginedSteps(1, 0.9).sample(3, torch.Generator())


def test_more_than_the_memory_is_refused_before_anything_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, action = torch.zeros(11), torch.zeros(3)
    monkeypatch.setattr(imagined, "free_memory", lambda: 10**8)
    require_memory(1_000, seen, action)
    with pytest.raises(RheostatError, match=r"keep 2,000,000 imagined steps in .* GB, and 0.1 GB of memory are free.*lower rollouts"):
        require_memory(2_000_000, seen, action)
    monkeypatch.setattr(imagined, "free_memory", lambda: None)  # where the system does not tell
    require_memory(2_000_000, seen, action)
