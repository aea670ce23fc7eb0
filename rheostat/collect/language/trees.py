"""WHO ACTS? as a part: trees of completions, grown in segments of a fixed length that branch where they end (TreePO).

A tree belongs to a prompt. Its nodes are segments; a path from the root to a leaf is a completion, so completions share their common
beginning and it is generated once. A tree is a group: its rows are its leaves, and the column ``path`` ``[B, depth]`` holds the number of
every row's node on every level (unique within a tree, the leaf's own last, -1 behind it).

Token in, token out: a segment is continued from the ids of the prompt and of the path, never from text, and every path that is cut back
is continued from exactly the tokens of its row. The noise is a function of (seed, update, prompt, sample, position): a branch is a new
sample that shares the beginning of an old one. A tree therefore does not depend on its neighbours, nothing has to be saved, and a tree that
never branches is a group of :class:`~rheostat.collect.language.language_collectors.Groups`, token by token.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.collect.language.generation.beginnings import Memory, remembering
from rheostat.collect.language.generation.engine import FinishReason, Generations
from rheostat.collect.language.generation.sampling import Sampling, continued
from rheostat.collect.language.tree_growth import Ending, EvenBranching, Fork, Node, ProbableBranching, Tree, completions, repeats
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD
from rheostat.tasks.language.task_interface import Prompt

STOP_TAIL = 8
"""Tokens before a segment in which a stop string may have begun, in addition to four for each of its characters."""


@dataclass(frozen=True)
class Trees:
    """The policy grows a tree of completions for each of the next prompts."""

    prompts: int = option(16, short="prompts_per_batch", at_least=1)
    """Prompts per batch."""
    width: int = option(16, short="group_size", at_least=1)
    """Completions per prompt (W): a tree ends with exactly as many, or with fewer where it is not refilled."""
    segment: int = option(512, at_least=1)
    """Tokens of a segment (S)."""
    depth: int = option(0, short="tree_depth", at_least=0)
    """Most segments of a completion (D); 0 takes as many as the longest completion needs."""
    branches: int = option(2, at_least=1)
    """Branches of a segment while the width allows (d)."""
    root_branches: int = option(0, at_least=0)
    """First segments of a tree; 0 takes as many as a segment has branches."""
    root_random: bool = option(False)
    """Draw the number of first segments for every tree, between ``branches`` and ``root_branches``."""
    branching: EvenBranching | ProbableBranching = EvenBranching()
    """How the branches are divided among paths."""
    refill: Literal["random", "none"] = option("random")
    """A tree without living paths, below its width: branch from random segments of finished paths, or keep the tree as it is."""
    repetition_count: int = option(8, at_least=0)
    """End paths in whose last segment a stretch of characters occurs so often; 0 ends none."""
    repetition_window: int = option(32, at_least=1)
    """Characters of that stretch."""
    share: bool = option(True)
    """Compute what paths have in common once: keys and values are kept between segments, and gradient steps see shared tokens once."""
    writes: ClassVar[tuple[str, ...]] = ("path",)
    single_turn: ClassVar[str] = "a path through a tree is one completion"
    refuses: ClassVar[Mapping[str, str]] = {
        "replay_share": "a replayed row does not carry the path that its advantage is computed from",
        "expert_share": "an expert's completion has no path in a tree",
    }

    def __post_init__(self) -> None:
        first = self.root_branches or self.branches
        if first > self.width:
            raise RheostatError(
                f"A tree that begins with {first} branches cannot have a group_size (tree.width) of {self.width}: raise it, or lower "
                "tree.root_branches and tree.branches."
            )
        if self.root_random and self.root_branches <= self.branches:
            raise RheostatError(f"root_random draws between {self.branches} branches and root_branches: set root_branches above that.")
        if self.repetition_count == 1:
            raise RheostatError("repetition_count is 1, which every segment reaches, so all branches would be pruned: at least 2, or 0.")
        if not self.repetition_count and self.repetition_window != 32:
            raise RheostatError("repetition_window belongs to a repetition_count, which is 0: set both.")

    @property
    def group_size(self) -> int:
        """Rows of a tree."""
        return self.width

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.prompts * self.width

    def bind(self, context: Any) -> None:
        """Refuse segments and depths that exceed the longest completion; rows of the batch share their beginnings."""
        if self.share:
            context.setup.policy.share = "beginnings"
        longest = context.longest
        if self.segment >= longest:
            raise RheostatError(
                f"A segment of {self.segment} tokens never ends inside a completion of at most {longest}, so no tree would branch: lower "
                "tree.segment or raise max_new_tokens."
            )
        if (self.depth - 1) * self.segment >= longest:
            raise RheostatError(
                f"tree.depth {self.depth} with segments of {self.segment} tokens goes beyond the {longest} tokens a completion may have: "
                "lower one of them, raise max_new_tokens, or leave the depth at 0."
            )

    def levels(self, longest: int) -> int:
        """Most segments of a path."""
        return self.depth or -(-longest // self.segment)

    def collect(self, context: Any) -> Batch:
        """``[leaves of all trees, T]``, leaves of a tree next to each other, with the column ``path`` ``[B, depth]``.

        Raises:
            RheostatError: every path of the batch was pruned as a repetition.
        """
        collector = context.collector
        drawn, numbers = collector.draw(self.prompts)
        depth = self.levels(context.longest)
        trees = [Tree(self, ids, number, collector.seed, context.updates, depth) for (_, ids), number in zip(drawn, numbers, strict=True)]
        generated = prefilled = 0
        with remembering(context.setup.engine) if self.share else nullcontext(Memory(0)) as memory:
            while any(tree.forks for tree in trees):
                one, two = self.grow(context, [tree for tree in trees if tree.forks], memory)
                generated, prefilled = generated + one, prefilled + two
        leaves = [(tree, node, why) for tree in trees for node, why in tree.leaves()]
        if all(why == Ending.REPETITION for *_, why in leaves):
            raise RheostatError(
                f"All branches were pruned: every segment of this batch repeats {self.repetition_window} characters "
                f"{self.repetition_count} times; raise repetition_count or repetition_window, or look at what the model writes."
            )
        prompt_of = {tree.number: prompt for tree, (prompt, _) in zip(trees, drawn, strict=True)}
        return self.batch_of(context, leaves, prompt_of, trees, generated, prefilled)

    def grow(self, context: Any, trees: list[Tree], memory: Memory) -> tuple[int, int]:
        """One segment for every sample of every fork; returns the tokens that were generated and that were computed before them.

        Args:
            context: of the learner.
            trees: those with forks.
            memory: what the engine has kept of their paths.
        """
        sampling: Sampling = context.sampling
        engine = context.setup.engine
        forks = [(tree, fork) for tree in trees for fork in tree.forks]
        calls: dict[tuple[int, int], list[int]] = {}
        for index, (_, fork) in enumerate(forks):
            width = min(self.segment, context.longest - fork.length)
            calls.setdefault((len(fork.samples), width), []).append(index)
        pieces: dict[int, list[tuple[Tensor, Tensor, Tensor, bool]]] = {}
        generated = prefilled = 0
        for (copies, width), members in sorted(calls.items()):
            prompts = [forks[index][0].ids + (node.ids() if (node := forks[index][1].node) else []) for index in members]
            streams = torch.tensor([tree.stream(sample) for tree, fork in (forks[index] for index in members) for sample in fork.samples])
            before = torch.tensor([forks[index][1].length for index in members]).repeat_interleave(copies)
            computed = sum(map(memory.computed, prompts))
            found: Generations = engine.generate(
                prompts, streams=continued(streams, before), group_size=copies, sampling=replace(sampling, max_new_tokens=width)
            )
            new = int(found.lengths.sum())
            context.count_tokens(FORWARD, new + computed)
            generated, prefilled = generated + new, prefilled + computed
            stopped = (found.finish == FinishReason.STOP).tolist()
            for place, index in enumerate(members):
                rows = range(place * copies, (place + 1) * copies)
                pieces[index] = [
                    (*(values[row, : int(found.lengths[row])] for values in (found.tokens, found.logp, found.versions)), stopped[row])
                    for row in rows
                ]
        grown: dict[int, list[tuple[Node, Ending | None]]] = {tree.number: [] for tree in trees}
        for index, (tree, fork) in enumerate(forks):
            for sample, (tokens, logp, versions, ended) in zip(fork.samples, pieces[index], strict=True):
                end = self.stop_string(context, fork, tokens)
                node = tree.add(fork, sample, tokens[:end], logp[:end], versions[:end])
                grown[tree.number].append((node, self.ending(context, node, tree.depth, ended or end is not None)))
        for tree in trees:
            tree.branch(grown[tree.number])
        return generated, prefilled

    def stop_string(self, context: Any, fork: Fork, tokens: Tensor) -> int | None:
        """Tokens of a segment up to the end of a stop string that began before it, which the engine could not see; None without one."""
        stops: tuple[str, ...] = context.sampling.stop_strings
        if not stops or fork.node is None:
            return None
        before = fork.node.ids()[-STOP_TAIL - 4 * max(map(len, stops)) :]

        def complete(count: int) -> bool:
            ids = before + tokens[:count].tolist()
            text = context.setup.policy.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            return any(stop in text for stop in stops)

        return next((count for count in range(1, len(tokens) + 1) if complete(count)), None) if complete(len(tokens)) else None

    def ending(self, context: Any, node: Node, depth: int, stopped: bool) -> Ending | None:
        """Why a path ends with a segment; None where it continues. The first reason counts."""
        if stopped:
            return Ending.STOP
        if node.length >= context.longest:
            return Ending.LENGTH
        if node.depth >= depth:
            return Ending.DEPTH
        if self.repetition_count:
            text = context.setup.policy.tokenizer.decode(node.tokens.tolist(), skip_special_tokens=True)
            if repeats(text, self.repetition_window, self.repetition_count):
                return Ending.REPETITION
        return None

    def batch_of(
        self,
        context: Any,
        leaves: list[tuple[Tree, Node, Ending]],
        prompt_of: dict[int, Prompt],
        trees: list[Tree],
        generated: int,
        prefilled: int,
    ) -> Batch:
        """Rows, grades, paths and counters of finished trees."""
        collector = context.collector
        found = completions([(tree.ids, node, why) for tree, node, why in leaves], context.sampling)
        numbers = [tree.number for tree, *_ in leaves]
        graded = collector.grade(found, [prompt_of[number] for number in numbers], numbers, progress=context.progress)
        graded = collector.enter(graded, generated)
        path = torch.full((len(leaves), trees[0].depth), -1)
        for row, (_, node, _) in enumerate(leaves):
            path[row, : node.depth] = torch.tensor([each.number for each in node.path])
        whole = int(found.lengths.sum())
        graded.metrics |= {
            "tree/generated_tokens": generated,
            "tree/prefilled_tokens": prefilled,
            "tree/shared_share": 1 - generated / whole,
            "tree/generated_per_path": generated / len(leaves),
            "tree/paths": len(leaves) / len(trees),
            "tree/depth": sum(node.depth for _, node, _ in leaves) / len(leaves),
            "tree/refilled_share": sum(tree.refilled for tree in trees) / len(leaves),
            "tree/repetition_share": sum(why == Ending.REPETITION for *_, why in leaves) / len(leaves),
        }
        return Batch(graded.trajectories, {"path": path}, metrics=dict(graded.metrics), facts={"graded": graded})
