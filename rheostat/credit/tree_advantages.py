"""Advantages from trees of completions: every node of a tree is a group of the leaves below it.

A row is a leaf; its path is the list of its nodes below the root, its own node last. ``path`` is ``[B, D]`` int64, -1 behind a row's last
node; numbers of nodes are unique within a tree, and a tree is named by ``group``. Level 0 is the root, which no path mentions: its group
is all rows of the prompt.

| function | what a leaf or segment is compared with | source |
|---|---|---|
| :func:`subgroup_advantage` | the mean of every group it belongs to, averaged | TreePO (arXiv 2508.17445) |
| :func:`progress_advantage` | a segment's node with its parent | TreePO, the segment variant of its code |
| :func:`sibling_advantage` | a segment's node with its siblings, minus the same for its parent | SPO's tree form, as in TreePO's code |

Rows where ``valid`` is False enter no group and get 0. A group whose rewards are all equal contributes exactly 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rheostat.credit.group_advantages import group_statistics, to_tokens
from rheostat.errors import RheostatError
from rheostat.masking import select, standardise
from rheostat.options import option
from rheostat.parts import Batch, Context, row_reward

LevelWeights = Literal["average", "group-size"]
WHITENING = 1e-8
"""Added to the variance, inside the root."""


def subgroup_advantage(
    reward: Tensor,
    group: Tensor,
    path: Tensor,
    *,
    valid: Tensor | None = None,
    weights: LevelWeights = "average",
    skip_equal: bool = False,
) -> Tensor:
    """``A_i = average over j of R_i - mean(g_j)``, where ``g_j`` are the leaves below the leaf's node at level j (TreePO).

    ``j = 0`` (the whole tree) is always a term; its mean counts as 0 where the tree has one leaf. ``j >= 1`` is one where the node is not
    the leaf itself and has more than one leaf below it.

    Args:
        reward: ``[B]`` float.
        group: ``[B]`` integers, the tree of every row.
        path: ``[B, D]`` int64; see the module.
        valid: ``[B]`` bool.
        weights: all terms alike, or by the number of leaves of ``g_j``.
        skip_equal: leave out ``g_j``, ``j >= 1``, whose rewards are all equal.

    Returns:
        ``[B]``.

    Raises:
        RheostatError: different shapes, a path with a gap, or a valid reward that is not finite.
    """
    nodes = nodes_of(group, path)
    depth = (path >= 0).sum(1)
    total, weight = torch.zeros_like(reward), torch.zeros_like(reward)
    for level in range(max(1, path.shape[1])):
        inside = level < depth if level else torch.ones_like(group, dtype=torch.bool)
        mine = inside if valid is None else inside & valid
        statistics = group_statistics(
            reward, torch.where(inside, nodes[:, level], -1 - torch.arange(len(group), device=group.device)), valid=mine
        )
        value = statistics.centred
        if level:
            used = mine & (statistics.size > 1) & ~(statistics.equal & skip_equal)
        else:
            used, value = mine, torch.where(statistics.size == 1, select(reward, mine), value)
        size = statistics.size.to(reward.dtype) if weights == "group-size" else torch.ones_like(reward)
        total, weight = total + select(size * value, used), weight + select(size, used)
    return total / weight.clamp(min=1)


def progress_advantage(reward: Tensor, group: Tensor, path: Tensor, *, valid: Tensor | None = None, decay: float | None = None) -> Tensor:
    """``value(node_k) - value(parent)`` of every segment, from the segment variant of TreePO's code.

    A leaf's value is the average of ``R_i - mean(g_j)`` over all its nodes, the root and itself included, weighted by the number of leaves
    of ``g_j``; an inner node's value is the mean of its children's; the root's is 0.

    Args:
        reward, group, path, valid: as in :func:`subgroup_advantage`.
        decay: the parent's value is multiplied by this to the power of the levels between parent and leaf; None by 1.

    Returns:
        ``[B, D]``, 0 behind a row's last segment.

    Raises:
        RheostatError: as :func:`subgroup_advantage`.
    """
    nodes = nodes_of(group, path)
    depth = (path >= 0).sum(1)
    valid = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    total, weight = torch.zeros_like(reward), torch.zeros_like(reward)
    for level in range(path.shape[1] + 1):
        inside = valid & (level <= depth)
        statistics = group_statistics(reward, nodes[:, level], valid=inside)
        size = select(statistics.size.to(reward.dtype), inside)
        total, weight = total + size * statistics.centred, weight + size
    value = node_values(total / weight.clamp(min=1), nodes, depth, valid)
    found = torch.zeros(path.shape, dtype=reward.dtype, device=reward.device)
    for level in range(1, path.shape[1] + 1):
        factor = 1.0 if decay is None else decay ** (depth - level + 1).clamp(min=0).to(reward.dtype)
        parent = value[:, level - 1] if level > 1 else torch.zeros_like(reward)
        found[:, level - 1] = select(value[:, level] - factor * parent, valid & (level <= depth))
    return found


def sibling_advantage(reward: Tensor, group: Tensor, path: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """``z(node_k) - z(parent)`` of every segment: z compares a node with its siblings, in their (biased) deviations.

    An inner node's value is the mean of its children's, a leaf's its reward; z is 0 where siblings do not differ, and at the root.

    Args:
        reward, group, path, valid: as in :func:`subgroup_advantage`.

    Returns:
        ``[B, D]``, 0 behind a row's last segment.

    Raises:
        RheostatError: as :func:`subgroup_advantage`.
    """
    nodes = nodes_of(group, path)
    depth = (path >= 0).sum(1)
    valid = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    value = node_values(select(reward, valid), nodes, depth, valid)
    found = torch.zeros(path.shape, dtype=reward.dtype, device=reward.device)
    before = torch.zeros_like(reward)
    for level in range(1, path.shape[1] + 1):
        inside = valid & (level <= depth)
        statistics = group_statistics(value[:, level], nodes[:, level - 1], valid=once(nodes[:, level], inside), unbiased=False)
        spread = statistics.std.masked_fill(statistics.equal, 1.0)
        now = select((value[:, level] - statistics.mean) / spread, inside & ~statistics.equal)
        found[:, level - 1] = select(now - before, inside)
        before = now
    return found


def nodes_of(group: Tensor, path: Tensor) -> Tensor:
    """``[B, D + 1]`` int64: number of every row's node on every level, the root first, unique in the batch; -1 behind a row's last node.

    Raises:
        RheostatError: other shapes than ``[B]`` and ``[B, D]``, or a path with a gap.
    """
    if path.ndim != 2 or group.shape != path.shape[:1]:
        raise RheostatError(f"One path per row is needed: groups {list(group.shape)}, paths {list(path.shape)}.")
    real = path >= 0
    if bool((real[:, 1:] & ~real[:, :-1]).any()):
        raise RheostatError("A path has a gap: -1 may only stand behind a row's last node.")
    found = torch.full((len(path), path.shape[1] + 1), -1, dtype=torch.int64, device=path.device)
    found[:, 0] = torch.unique(group, return_inverse=True)[1]
    for level in range(1, path.shape[1] + 1):
        pairs = torch.stack([found[:, 0], path[:, level - 1]], 1)
        found[:, level] = torch.where(real[:, level - 1], torch.unique(pairs, dim=0, return_inverse=True)[1], -1)
    return found


def once(node: Tensor, keep: Tensor) -> Tensor:
    """``[B]`` bool: one kept row of every node ``[B]``, the first."""
    rows = torch.arange(len(node), device=node.device)
    count = int(node.max()) + 2 if len(node) else 1
    first = torch.full((count,), len(node), device=node.device).scatter_reduce(0, node + 1, torch.where(keep, rows, len(node)), "amin")
    return keep & (first[node + 1] == rows)


def node_values(leaf: Tensor, nodes: Tensor, depth: Tensor, valid: Tensor) -> Tensor:
    """``[B, D + 1]``: the value of every row's node on every level, a leaf's own or the mean of its children's.

    Args:
        leaf: ``[B]``, of the rows.
        nodes: ``[B, D + 1]``, from :func:`nodes_of`.
        depth: ``[B]`` int64, level of every leaf.
        valid: ``[B]`` bool; other rows are no leaves.
    """
    value = torch.zeros(nodes.shape, dtype=leaf.dtype, device=leaf.device)
    for level in range(nodes.shape[1] - 1, -1, -1):
        value[:, level] = torch.where(depth == level, leaf, value[:, level])
        if level:
            inside = valid & (level <= depth)
            mean = group_statistics(value[:, level], nodes[:, level - 1], valid=once(nodes[:, level], inside)).mean
            value[:, level - 1] = torch.where(inside, mean, value[:, level - 1])
    return value


def segments_to_tokens(advantage: Tensor, mask: Tensor, segment: int) -> Tensor:
    """Advantages of segments ``[B, D]`` on their tokens ``[B, T]``: the k-th kept token of a row is in segment ``k // segment``.

    Raises:
        RheostatError: a row has more tokens than its segments hold.
    """
    place = (mask.long().cumsum(1) - 1).clamp(min=0) // segment
    if bool((select(place, mask, 0) >= max(1, advantage.shape[1])).any()):
        raise RheostatError(f"{advantage.shape[1]} segments of {segment} tokens are fewer than the tokens of some row.")
    return select(advantage.gather(1, place.clamp(max=advantage.shape[1] - 1)), mask)


def whitened(advantage: Tensor, mask: Tensor) -> Tensor:
    """``(x - mean) / sqrt(var + 1e-8)`` over all kept tokens of the batch, ``[B, T]``; no group is divided by its own deviation."""
    return standardise(advantage, mask, eps=WHITENING, eps_inside_root=True)


# --- as parts ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TreeAdvantage(ABC):
    """Base class of annotations from paths."""

    segment: int = 0
    """Tokens of a segment."""
    reads: ClassVar[Sequence[str]] = ("path",)
    writes: ClassVar[Sequence[str]] = ("advantage",)

    def with_segment(self, segment: int) -> TreeAdvantage:
        """The same for segments of this length."""
        return replace(self, segment=segment)

    def __call__(self, context: Context, batch: Batch) -> Batch:
        batch.rows.advantage = self.of(batch, row_reward(batch))
        return batch

    @abstractmethod
    def of(self, batch: Batch, reward: Tensor) -> Tensor:
        """Token advantages ``[B, T]`` from row rewards ``[B]``."""


@dataclass(frozen=True)
class SubgroupAdvantage(TreeAdvantage):
    """A leaf compared with every group of its path, on all its tokens, whitened over the batch."""

    kind: ClassVar[str] = "subgroups"
    weights: LevelWeights = option("average", short="level_weights")
    """How the groups of a path are averaged: all alike, or by their number of leaves."""
    skip_equal: bool = option(False, short="skip_equal_groups")
    """Leave groups below the root out whose rewards are all equal."""

    def of(self, batch: Batch, reward: Tensor) -> Tensor:
        rows, path = batch.rows, batch.columns["path"]
        found = subgroup_advantage(reward, rows.group[:, 0], path, valid=rows.valid[:, 0], weights=self.weights, skip_equal=self.skip_equal)
        return whitened(to_tokens(found, rows.mask), rows.mask)


@dataclass(frozen=True)
class RootAdvantage(TreeAdvantage):
    """A leaf compared with its whole tree alone, on all its tokens, whitened over the batch."""

    kind: ClassVar[str] = "root"

    def of(self, batch: Batch, reward: Tensor) -> Tensor:
        rows, path = batch.rows, batch.columns["path"]
        found = subgroup_advantage(reward, rows.group[:, 0], path[:, :0], valid=rows.valid[:, 0])
        return whitened(to_tokens(found, rows.mask), rows.mask)


@dataclass(frozen=True)
class ProgressAdvantage(TreeAdvantage):
    """What each segment adds to the value of its node, on its tokens, whitened over the batch."""

    kind: ClassVar[str] = "progress"
    decay: float | None = option(None, short="progress_decay", above=0, at_most=1)
    """The parent's value is multiplied by this to the power of the levels between it and the leaf; None by 1."""

    def of(self, batch: Batch, reward: Tensor) -> Tensor:
        rows, path = batch.rows, batch.columns["path"]
        found = progress_advantage(reward, rows.group[:, 0], path, valid=rows.valid[:, 0], decay=self.decay)
        return whitened(segments_to_tokens(found, rows.mask, self.segment), rows.mask)


@dataclass(frozen=True)
class SiblingAdvantage(TreeAdvantage):
    """Each segment's node compared with its siblings, minus the same for its parent; on its tokens, not whitened."""

    kind: ClassVar[str] = "siblings"

    def of(self, batch: Batch, reward: Tensor) -> Tensor:
        rows, path = batch.rows, batch.columns["path"]
        found = sibling_advantage(reward, rows.group[:, 0], path, valid=rows.valid[:, 0])
        return segments_to_tokens(found, rows.mask, self.segment)


AnyTreeAdvantage = SubgroupAdvantage | RootAdvantage | ProgressAdvantage | SiblingAdvantage
