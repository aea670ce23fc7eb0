"""The tree of sums against running sums of all priorities."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.buffers.priorities import SumTree

SIZES = st.sampled_from([1, 2, 31, 32, 33, 1000, 1024, 1025, 3000])


def filled(size: int, generator: torch.Generator, changes: int = 4) -> SumTree:
    """A tree that was changed several times; about a third of the places have no priority."""
    tree = SumTree(size)
    for _ in range(changes):
        index = torch.randperm(size, generator=generator)[: max(size // 2, 1)]
        value = torch.rand(len(index), generator=generator) ** 8
        tree.set(index, torch.where(torch.rand(len(index), generator=generator) < 0.3, 0.0, value))
    return tree


@given(SIZES, st.integers(0, 2**20))
def test_a_place_is_found_by_its_share_of_the_running_sum(size: int, seed: int) -> None:
    tree = filled(size, torch.Generator().manual_seed(seed))
    leaves = tree.leaves[:size]
    running = leaves.cumsum(0)
    assert tree.total() == pytest.approx(running[-1].item())
    assert not tree.leaves[size:].any()
    clear = (leaves > 1e-9 * running[-1]).nonzero().flatten()  # narrower ones are within the rounding of the sums
    assert torch.equal(tree.find((running - leaves / 2)[clear]), clear)


@given(SIZES, st.integers(0, 2**20))
def test_places_without_priority_are_never_found(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tree = filled(size, generator)
    total = tree.total()
    if not total:
        return
    edges = torch.tensor([0.0, total * (1 - 1e-16), total, total * 2], dtype=torch.float64)
    borders = tree.leaves[:size].cumsum(0)[:2000]
    mass = torch.cat([edges, borders, torch.rand(500, generator=generator, dtype=torch.float64) * total])
    found = tree.find(mass)
    assert found.max() < size and (tree.leaves[found] > 0).all()


@given(SIZES, st.integers(0, 2**20))
def test_sums_depend_on_the_present_priorities_only(size: int, seed: int) -> None:
    tree = filled(size, torch.Generator().manual_seed(seed))
    one_by_one, at_once = SumTree(size), SumTree(size)
    at_once.set(torch.arange(size), tree.leaves[:size])
    for part in torch.arange(size).split(max(size // 5, 1)):
        one_by_one.set(part.flip(0), tree.leaves[:size][part].flip(0))
    for level, *others in zip(tree.levels, one_by_one.levels, at_once.levels, strict=True):
        assert all(torch.equal(level, other) for other in others)
