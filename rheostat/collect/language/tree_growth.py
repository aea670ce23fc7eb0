"""How a tree of completions grows: segments, how many branches each gets, and where a tree without living paths branches again (TreePO).

Everything here is bookkeeping: :mod:`rheostat.collect.language.trees` samples and grades.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from rheostat.collect.language.generation.engine import FinishReason, Generations
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.options import option
from rheostat.streams import derive_seed


class Ending(Enum):
    """Why a path ended."""

    STOP = "stop"  # an end token or a stop string
    LENGTH = "length"  # as long as a completion may be
    DEPTH = "depth"  # as many segments as a path may have
    REPETITION = "repetition"  # the last segment repeats the same text


@dataclass(eq=False)
class Node:
    """A segment of a tree, which continues its parent's."""

    parent: Node | None
    number: int
    """Its number within the tree."""
    sample: int
    """Number of the tree's sample whose noise drew it."""
    tokens: Tensor
    """``[n]`` int64."""
    logp: Tensor
    """``[n]`` float32 under the distribution that sampled."""
    versions: Tensor
    """``[n]`` int64, updates behind the weights that sampled."""
    depth: int = field(init=False)
    """1 for a first segment."""
    length: int = field(init=False)
    """Tokens of the path up to here."""

    def __post_init__(self) -> None:
        self.depth = 1 + (self.parent.depth if self.parent else 0)
        self.length = len(self.tokens) + (self.parent.length if self.parent else 0)

    @property
    def path(self) -> list[Node]:
        """From the first segment to this one."""
        found: list[Node] = []
        node: Node | None = self
        while node is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    def ids(self) -> list[int]:
        """Tokens of the path."""
        return [token for node in self.path for token in node.tokens.tolist()]


@dataclass
class Fork:
    """A node (None: the root) that is about to grow one segment for every sample."""

    node: Node | None
    samples: list[int]

    @property
    def length(self) -> int:
        """Tokens of the path so far."""
        return self.node.length if self.node else 0


# --- how many branches ------------------------------------------------------------------------------------------------------------------


def branch_budget(width: int, finished: int, finished_now: int, active: int, branches: int) -> int:
    """Segments that a tree grows next: the rest of its width, at most ``branches`` for every path that was alive, and never fewer than
    are alive now. The branches that finished paths would have had go to the living ones.

    Args:
        width: finished paths that a tree should have.
        finished: paths that have ended so far.
        finished_now: those that ended in this segment.
        active: paths that continue.
        branches: usual branches of a path.
    """
    return max(min(max(width - finished, 0), branches * (finished_now + active)), active)


def even_copies(total: int, paths: int) -> list[int]:
    """The same number for every path, the last one also gets the remainder."""
    copies = [total // paths] * paths
    copies[-1] += total - sum(copies)
    return copies


def weighted_copies(weights: Sequence[float], total: int) -> list[int]:
    """One for every path, the rest in proportion to the weights by largest remainders (the first of equals)."""
    rest = total - len(weights)
    shares = [rest * weight / sum(weights) for weight in weights]
    copies = [1 + int(share) for share in shares]
    order = sorted(range(len(weights)), key=lambda index: int(shares[index]) - shares[index])
    for index in order[: total - sum(copies)]:
        copies[index] += 1
    return copies


@dataclass(frozen=True)
class EvenBranching:
    """Every living path gets the same number of branches."""

    kind: ClassVar[str] = "even"

    def copies(self, paths: Sequence[Node], total: int) -> list[int]:
        """Branches of every path."""
        return even_copies(total, len(paths))


@dataclass(frozen=True)
class ProbableBranching:
    """Paths branch by how likely they are: weights ``softmax(+-(x - min x) / temperature)`` of a statistic x of their log-probabilities."""

    kind: ClassVar[str] = "probability"
    prefer: Literal["likely", "unlikely"] = option("likely")
    """Paths that get more branches."""
    statistic: Literal["sum", "mean", "segment"] = option("mean")
    """Of the path's token log-probabilities: their sum, their mean, or the mean of the last segment."""
    temperature: float = option(1.0, short="branching_temperature", above=0)
    """The higher, the more equal the weights."""

    def copies(self, paths: Sequence[Node], total: int) -> list[int]:
        """Branches of every path."""
        x = torch.stack([self._of(node) for node in paths]).double()
        sign = 1.0 if self.prefer == "likely" else -1.0
        return weighted_copies(torch.softmax(sign * (x - x.min()) / self.temperature, 0).tolist(), total)

    def _of(self, node: Node) -> Tensor:
        if self.statistic == "segment":
            return node.logp.mean()
        logp = torch.cat([each.logp for each in node.path])
        return logp.sum() if self.statistic == "sum" else logp.mean()


def repeats(text: str, window: int, count: int) -> bool:
    """Whether some stretch of ``window`` characters occurs at least ``count`` times, overlaps included."""
    seen = Counter(text[start : start + window] for start in range(len(text) - window + 1))
    return bool(seen) and max(seen.values()) >= count


# --- a tree -----------------------------------------------------------------------------------------------------------------------------


class Rules(Protocol):
    """How trees grow: options of :class:`~rheostat.collect.language.trees.Trees`."""

    @property
    def width(self) -> int: ...
    @property
    def branches(self) -> int: ...
    @property
    def root_branches(self) -> int: ...
    @property
    def root_random(self) -> bool: ...
    @property
    def refill(self) -> str: ...
    @property
    def branching(self) -> EvenBranching | ProbableBranching: ...


class Tree:
    """A prompt's tree while it grows; its samples depend on (seed, update, number of the prompt) and on nothing else.

    Args:
        rules: how it grows.
        ids: tokens of the prompt.
        number: of the prompt in the run.
        seed: of the run.
        update: number of the policy update.
        depth: most segments of a path.
    """

    def __init__(self, rules: Rules, ids: list[int], number: int, seed: int, update: int, depth: int) -> None:
        self.rules, self.ids, self.number, self.depth = rules, ids, number, depth
        self._noise, self._update = derive_seed(seed, "train"), update
        self.chance = torch.Generator().manual_seed(derive_seed(seed, "trees", update, number))
        self._streams: list[int] = []
        self.samples = self.nodes = 0
        self.finished: list[tuple[Node, Ending]] = []
        self.refilled = 0
        """Paths begun because the tree had no living path."""
        count = rules.root_branches or rules.branches
        if rules.root_random:
            count = int(torch.randint(rules.branches, count + 1, (), generator=self.chance))
        self.forks = [Fork(None, self.new_samples(count))]

    def new_samples(self, count: int) -> list[int]:
        """Numbers of the next samples."""
        first, self.samples = self.samples, self.samples + count
        return list(range(first, self.samples))

    def stream(self, sample: int) -> int:
        """The random stream of a sample, as :func:`~rheostat.collect.language.generation.sampling.row_streams` names it in a group."""
        if sample >= len(self._streams):
            self._streams = row_streams(self._noise, self._update, [self.number], 2 * (sample + 1)).tolist()
        return self._streams[sample]

    def leaves(self) -> list[tuple[Node, Ending]]:
        """Finished paths in the order of their samples."""
        return sorted(self.finished, key=lambda leaf: leaf[0].sample)

    def add(self, fork: Fork, sample: int, tokens: Tensor, logp: Tensor, versions: Tensor) -> Node:
        """A new segment behind a fork."""
        self.nodes += 1
        return Node(fork.node, self.nodes - 1, sample, tokens, logp, versions)

    def branch(self, grown: list[tuple[Node, Ending | None]]) -> None:
        """Decide which segments continue, and with how many branches.

        Args:
            grown: the segments of this level, and which of them end their paths.
        """
        ended = [(node, why) for node, why in grown if why is not None]
        alive = [node for node, why in grown if why is None]
        self.finished += ended
        if alive:
            rules = self.rules
            total = branch_budget(rules.width, len(self.finished), len(ended), len(alive), rules.branches)
            self.forks = [
                Fork(node, [node.sample, *self.new_samples(copies - 1)])
                for node, copies in zip(alive, rules.branching.copies(alive, total), strict=True)
            ]
        else:
            self.forks = self.refill(self.rules.width - len(self.finished)) if self.rules.refill == "random" else []

    def refill(self, missing: int) -> list[Fork]:
        """Branches inside finished paths for a tree that has none alive: each is cut back to a random segment boundary.

        Only paths that stopped by themselves are branched from, in random order; without any the tree begins again at the prompt.
        """
        if missing <= 0:
            return []
        stopped = [node for node, why in self.finished if why == Ending.STOP]
        order = torch.randperm(len(stopped), generator=self.chance).tolist()
        forks = []
        for node in [stopped[index] for index in order] or [None]:
            path = node.path if node else []
            keep = int(torch.randint(len(path), (), generator=self.chance)) if path else 0  # at least one segment is removed
            count = min(self.rules.branches, missing)
            forks.append(Fork(path[keep - 1] if keep else None, self.new_samples(count)))
            missing, self.refilled = missing - count, self.refilled + count
            if not missing:
                break
        return forks


def completions(leaves: list[tuple[list[int], Node, Ending]], sampling: Sampling) -> Generations:
    """Paths as completions, one for each leaf.

    Args:
        leaves: tokens of the prompt, last segment, and why the path ended; a path that did not stop by itself counts as cut.
        sampling: how they were sampled.
    """
    device = leaves[0][1].tokens.device
    lengths = torch.tensor([node.length for _, node, _ in leaves], device=device)
    shape = (len(leaves), int(lengths.max()))
    tokens = torch.zeros(shape, dtype=torch.int64, device=device)
    logp = torch.full(shape, torch.nan, device=device)
    versions = torch.full(shape, -1, device=device)
    for row, (_, node, _) in enumerate(leaves):
        path = node.path
        for into, values in ((tokens, "tokens"), (logp, "logp"), (versions, "versions")):
            into[row, : node.length] = torch.cat([getattr(each, values) for each in path])
    finish = [int(FinishReason.STOP if why == Ending.STOP else FinishReason.LENGTH) for *_, why in leaves]
    return Generations([ids for ids, *_ in leaves], 1, tokens, logp, lengths, torch.tensor(finish, device=device), versions, sampling)
