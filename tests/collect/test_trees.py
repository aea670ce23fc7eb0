"""How trees grow, without a model: budgets, streams, endings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.collect.language.generation.sampling import Sampling, continued, row_streams, uniforms
from rheostat.collect.language.tree_growth import Ending, Fork, Node, ProbableBranching, Tree, repeats, weighted_copies
from rheostat.collect.language.trees import Trees
from tests.tiny_language import tokenizer


def node(parent: Node | None = None, tokens: int = 3, logp: float = -1.0, number: int = 0) -> Node:
    return Node(parent, number, 0, torch.arange(tokens), torch.full((tokens,), logp), torch.zeros(tokens, dtype=torch.int64))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 5), st.booleans(), st.booleans(), st.integers(0, 10_000))
def test_a_tree_ends_with_its_width(width: int, branches: int, root: int, random: bool, refill: bool, seed: int) -> None:
    """Whatever ends when: with refilling exactly ``width`` paths, without at most; no sample ends twice; no path is deeper than allowed."""
    branches = min(branches, width)
    root = min(root, width)
    rules = Trees(
        width=width, branches=branches, root_branches=root, root_random=random and root > branches, refill="random" if refill else "none"
    )
    draw = torch.Generator().manual_seed(seed)
    tree = Tree(rules, [1, 2], 3, seed, 4, 5)
    samples: list[int] = []
    while tree.forks:
        waiting = sum(len(fork.samples) for fork in tree.forks)
        assert waiting >= 1 and waiting + len(tree.finished) <= width
        grown: list[tuple[Node, Ending | None]] = []
        for fork in tree.forks:
            for sample in fork.samples:
                tokens = torch.zeros(2, dtype=torch.int64)
                each = tree.add(fork, sample, tokens, torch.zeros(2), tokens)
                chance = float(torch.rand((), generator=draw))
                why = (
                    Ending.DEPTH
                    if each.depth == tree.depth
                    else Ending.STOP
                    if chance < 0.3
                    else Ending.REPETITION
                    if chance < 0.4
                    else None
                )
                grown.append((each, why))
        tree.branch(grown)
        samples += [leaf.sample for leaf, why in grown if why]
    assert len(tree.finished) == width if refill else 1 <= len(tree.finished) <= width
    assert len(set(samples)) == len(samples) == len(tree.finished)
    assert max(leaf.depth for leaf, _ in tree.finished) <= tree.depth
    assert len({each.number for leaf, _ in tree.finished for each in leaf.path}) == tree.nodes


def test_a_dry_tree_branches_from_what_stopped_by_itself() -> None:
    """Cut at a segment boundary, at least one segment shorter; nothing else is a candidate, and without one it begins again."""
    tree = Tree(Trees(width=8, branches=2), [1], 0, 0, 0, 9)
    first = node(number=0)
    stopped = node(node(first, number=1), tokens=1, number=2)
    cut = node(first, number=3)
    tree.finished = [(stopped, Ending.STOP), (cut, Ending.DEPTH)]
    kept = set()
    for _ in range(40):
        (fork,) = tree.refill(6)  # one candidate, two branches
        assert len(fork.samples) == 2
        kept.add(None if fork.node is None else fork.node.number)
    assert kept == {None, 0, 1}
    tree.finished = [(cut, Ending.DEPTH), (cut, Ending.LENGTH), (cut, Ending.REPETITION)]
    assert [(fork.node, len(fork.samples)) for fork in tree.refill(1)] == [(None, 1)]
    assert tree.refill(0) == []


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 300), st.integers(1, 20))
def test_streams_are_continued(seed: int, before: int, count: int) -> None:
    streams = row_streams(seed, 3, [5, 8], 3)
    torch.testing.assert_close(uniforms(continued(streams, before), 0, count), uniforms(streams, before, count), atol=0, rtol=0)
    each = torch.arange(6) * before
    rows = torch.cat([uniforms(streams[i : i + 1], int(each[i]), count) for i in range(6)])
    assert torch.equal(uniforms(continued(streams, each), 0, count), rows)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.integers(0, 20))
def test_copies_are_shared_out(weights: list[float], rest: int) -> None:
    total = len(weights) + rest
    copies = weighted_copies(weights, total)
    assert sum(copies) == total and min(copies) >= 1
    for copy, weight in zip(copies, weights, strict=True):
        assert abs(copy - 1 - rest * weight / sum(weights)) < 1 + 1e-9


def test_likely_paths_get_more_branches() -> None:
    likely, unlikely = node(logp=-0.1), node(logp=-3.0)
    assert ProbableBranching("likely", "mean", 0.5).copies([likely, unlikely], 8) == [7, 1]
    assert ProbableBranching("unlikely", "mean", 0.5).copies([likely, unlikely], 8) == [1, 7]
    longer = node(node(logp=-2.0, tokens=9), logp=-0.1)
    assert ProbableBranching("likely", "segment", 0.1).copies([unlikely, longer], 4) == [1, 3]
    assert ProbableBranching("likely", "sum", 1.0).copies([unlikely, longer], 4) == [3, 1]


def test_repetition() -> None:
    assert repeats("ab" * 10, 2, 10) and not repeats("ab" * 10, 2, 11)
    assert repeats("aaaa", 1, 4) and not repeats("abcd", 1, 2) and not repeats("aa", 3, 1)


@pytest.mark.parametrize(("before", "after", "expected"), [("12=", "#34", 1), ("12", "=#3", 2), ("12", "34", None), ("1=", "3#=#", 4)])
def test_stop_strings_across_segments(before: str, after: str, expected: int | None) -> None:
    """The engine sees a segment alone; a stop string may begin in the one before."""
    tokens = tokenizer()
    parent = Node(None, 0, 0, torch.tensor(tokens(before)["input_ids"]), torch.zeros(len(before)), torch.zeros(len(before)))
    context: Any = SimpleNamespace(sampling=Sampling(stop_strings=("=#",)), setup=SimpleNamespace(policy=SimpleNamespace(tokenizer=tokens)))
    segment = torch.tensor(tokens(after)["input_ids"])
    assert Trees().stop_string(context, Fork(parent, [0]), segment) == expected
    assert Trees().stop_string(context, Fork(None, [0]), segment) is None  # the engine has seen all of it
