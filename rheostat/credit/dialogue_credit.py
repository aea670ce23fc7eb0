"""What a path through a tree of dialogues is worth to each of its tokens: relative to its tree, with the tags held back (DialTree-RPO)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.credit.group_advantages import group_statistics, grpo_advantage, to_tokens
from rheostat.credit.tree_advantages import nodes_of
from rheostat.credit.turns import on_tokens, steps_of
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch, Context, row_reward

MaskMode = Literal["adaptive", "static", "none"]


def node_advantage(advantage: Tensor, group: Tensor, path: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """``[B, D]``: on every turn, the mean advantage of the paths below its node, divided by their number.

    A node then counts once in a sum over rows, in the place of once for every path below it.

    Args:
        advantage: ``[B]``, of paths.
        group: ``[B]`` integers, the tree of every row.
        path: ``[B, D]`` int64, -1 behind a row's last node.
        valid: ``[B]`` bool; other rows belong to no node and get 0.
    """
    nodes = nodes_of(group, path)[:, 1:]
    known = torch.ones_like(group, dtype=torch.bool) if valid is None else valid
    columns = []
    for level in range(path.shape[1]):
        inside = known & (nodes[:, level] >= 0)
        found = group_statistics(advantage, nodes[:, level], valid=inside)
        columns.append(torch.where(inside, found.mean / found.size.clamp(min=1), 0.0))
    return torch.stack(columns, 1)


def tag_mask(tokens: Tensor, advantage: Tensor, tags: Sequence[int], mode: MaskMode) -> Tensor:
    """``[B, T]`` bool: tokens whose surrogate counts (the paper's M).

    ``adaptive`` leaves out tags of a negative advantage, ``static`` leaves out all tags, ``none`` nothing.

    Args:
        tokens: ``[B, T]`` ids.
        advantage: ``[B, T]``; its sign counts, not the reward's.
        tags: ids of the tags.
        mode: which tags are left out.
    """
    if mode == "none":
        return torch.ones_like(tokens, dtype=torch.bool)
    is_tag = torch.isin(tokens, torch.tensor(list(tags), dtype=tokens.dtype, device=tokens.device))
    return ~(is_tag & (advantage < 0)) if mode == "adaptive" else ~is_tag


@dataclass(frozen=True)
class PathAdvantage:
    """``A = (R - mean) / (std + eps)`` among the paths of a tree, on all tokens that the policy wrote. A tree of one path gives 0."""

    epsilon: float = option(1e-6, short="advantage_epsilon", above=0)
    """Added to the standard deviation of a tree's rewards, which divides by n - 1."""
    prefix: Literal["repeat", "mean"] = option("repeat", short="prefix_mode")
    """A reply that paths share: it counts in each of them with that path's advantage, or once with their mean."""
    reads: ClassVar[Sequence[str]] = ("path",)
    writes: ClassVar[Sequence[str]] = ("advantage",)

    def __call__(self, context: Context, batch: Batch) -> Batch:
        batch.rows.advantage = self.of(batch, row_reward(batch))
        return batch

    def of(self, batch: Batch, reward: Tensor) -> Tensor:
        """Token advantages ``[B, T]`` from row rewards ``[B]``."""
        rows = batch.rows
        group, valid = rows.group[:, 0], rows.valid[:, 0]
        found = grpo_advantage(reward, group, eps=self.epsilon, singleton="zero", valid=valid)
        if self.prefix == "repeat":
            return to_tokens(found, rows.mask)
        return on_tokens(node_advantage(found, group, batch.columns["path"], valid=valid), steps_of(batch))


@dataclass(frozen=True)
class TagMask:
    """Sets the advantage of tags to 0, so that their surrogate is 0; they still count in every denominator and in the KL."""

    mode: MaskMode = option("adaptive", short="mask")
    """Tags that no surrogate moves: those of paths that are worse than their tree's mean (adaptive), all (static), or none."""
    tags: str = ""
    """Tags of a well-formed reply, separated by blanks; empty takes the task's."""
    reads: ClassVar[Sequence[str]] = ("advantage",)
    writes: ClassVar[Sequence[str]] = ("advantage",)

    def bind(self, context: Any) -> None:
        """Refuse tags that are not one token each."""
        if self.mode != "none":
            self.ids(context)

    def ids(self, context: Any) -> list[int]:
        """Token ids of the tags.

        Raises:
            RheostatError: a tag is no single token of the model.
        """
        tokenizer, found = context.setup.policy.tokenizer, []
        for tag in self.tags.split() or context.setup.task.tags:
            ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                raise RheostatError(
                    f"The tag {tag!r} is {len(ids)} tokens of this model, and the mask holds single tokens back: choose other tags, add it "
                    "to the tokenizer, or set mask none."
                )
            found += ids
        return found

    def __call__(self, context: Any, batch: Batch) -> Batch:
        if self.mode == "none":
            return batch
        rows = batch.rows
        keep = tag_mask(rows.action, rows.advantage, self.ids(context), self.mode)
        rows.advantage = torch.where(keep, rows.advantage, 0.0)
        batch.metrics["tree/masked_share"] = float((~keep & rows.mask).sum()) / max(1, int(rows.mask.sum()))
        return batch
