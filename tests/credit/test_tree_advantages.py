"""Laws of advantages from trees; their numbers are held to the authors' code by golden vectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rheostat.credit.tree_advantages import (
    progress_advantage,
    segments_to_tokens,
    sibling_advantage,
    subgroup_advantage,
)
from rheostat.errors import RheostatError

DEPTH = 4


def forest(seed: int, trees: int = 3, leaves: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, groups, paths and validity of random trees: every leaf leaves an earlier one's path at a random place."""
    draw = torch.Generator().manual_seed(seed)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=draw))

    group, path = [], []
    for tree in range(trees):
        mine: list[list[int]] = []
        count = 0
        for _ in range(leaves):
            old = mine[integer(0, len(mine))] if mine else []
            kept = old[: integer(0, len(old))] if old else []
            fresh = integer(1, DEPTH - len(kept) + 1)
            mine.append(kept + list(range(count, count + fresh)))
            count += fresh
        group += [7 * tree + 5] * leaves
        path += [each + [-1] * (DEPTH - len(each)) for each in mine]
    reward = torch.randint(0, 4, (len(group),), generator=draw).double() / 3
    return reward, torch.tensor(group), torch.tensor(path), torch.rand(len(group), generator=draw) > 0.2


ALL = {
    "subgroups": subgroup_advantage,
    "by size": lambda *a, **b: subgroup_advantage(*a, **b, weights="group-size", skip_equal=True),
    "progress": progress_advantage,
    "decayed": lambda *a, **b: progress_advantage(*a, **b, decay=0.8),
    "siblings": sibling_advantage,
}


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_laws(name: str, seed: int) -> None:
    """Order of rows, names of nodes and trees, other trees and invalid rows change nothing; equal rewards are exactly 0."""
    advantage = ALL[name]
    reward, group, path, valid = forest(seed)
    found = advantage(reward, group, path, valid=valid)
    order = torch.randperm(len(group), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(advantage(reward[order], group[order], path[order], valid=valid[order]), found[order])
    renamed = torch.where(path >= 0, 1000 - 3 * path, path)
    torch.testing.assert_close(advantage(reward, -group, renamed, valid=valid), found)
    torch.testing.assert_close(advantage(reward[valid], group[valid], path[valid]), found[valid])
    assert not bool(found[~valid].any())
    noisy = torch.where(valid, reward, torch.nan)
    torch.testing.assert_close(advantage(noisy, group, path, valid=valid), found)
    first = group == group[0]
    torch.testing.assert_close(advantage(reward[first], group[first], path[first], valid=valid[first]), found[first])
    alone = torch.stack([(group == each).sum() for each in group]) > 1
    level = torch.where(valid, 0.1, 0.7)  # 0.1 has no exact sum
    equal = advantage(level, group, path, valid=valid)
    several = torch.stack([((group == each) & valid).sum() for each in group]) > 1
    assert not bool(equal[alone & several].any())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_segments_add_up_to_their_leaf(seed: int) -> None:
    """Progress telescopes to the leaf's value, which is its size-weighted distance from all of its groups; so do siblings."""
    reward, group, path, _ = forest(seed)
    whole = progress_advantage(reward, group, path).sum(1)
    for row in range(len(group)):
        total, weight = 0.0, 0.0
        for level in range(int((path[row] >= 0).sum()) + 1):
            below = (group == group[row]) & (path[:, :level] == path[row, :level]).all(1)
            total += float(below.sum()) * float(reward[row] - reward[below].mean())
            weight += float(below.sum())
        assert float(whole[row]) == pytest.approx(total / weight, abs=1e-12)
    last = sibling_advantage(reward, group, path).sum(1)
    assert bool(last.isfinite().all()) and float(last.abs().max()) <= len(group)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_whole_tree_alone_is_a_baseline_of_the_group(seed: int) -> None:
    """Without levels below the root; the mean over the leaves of a node is then the node's value minus the root's."""
    reward, group, path, _ = forest(seed)
    found = subgroup_advantage(reward, group, path[:, :0])
    for tree in group.unique():
        mine = group == tree
        torch.testing.assert_close(found[mine], reward[mine] - reward[mine].mean())
        for node in path[mine][:, 0].unique():
            below = mine & (path[:, 0] == node)
            torch.testing.assert_close(found[below].mean(), reward[below].mean() - reward[mine].mean())
    single = subgroup_advantage(torch.tensor([0.5]), torch.tensor([3]), torch.tensor([[0, 1]]))
    assert single.tolist() == [0.5]


def test_segments_cover_their_tokens() -> None:
    mask = torch.tensor([[False, True, True, True, False], [False, False, True, False, False]])
    found = segments_to_tokens(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), mask, 2)
    assert found.tolist() == [[0, 1, 1, 2, 0], [0, 0, 3, 0, 0]]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: subgroup_advantage(torch.zeros(2), torch.zeros(2), torch.tensor([[0, -1, 2], [0, 1, 2]])), "A path has a gap"),
        (lambda: subgroup_advantage(torch.zeros(2), torch.zeros(2), torch.zeros(3, 1)), "One path per row is needed"),
        (lambda: progress_advantage(torch.tensor([torch.nan]), torch.zeros(1), torch.zeros(1, 1)), "A reward is not finite"),
        (lambda: segments_to_tokens(torch.zeros(1, 1), torch.ones(1, 3, dtype=torch.bool), 2), "fewer than the tokens of some row"),
    ],
)
def test_refusals(call: object, sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)
