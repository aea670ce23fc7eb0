"""WHO ACTS? as parts: groups of completions, groups that carry a signal, groups that an expert has joined, demonstrations alone.

A collector asks the context for its prompts (``context.collector``), how to sample and which update it is. What does not fit into tensors
(texts, grades) travels in the batch's fact ``graded``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from rheostat.buffers.mixing import Mixture
from rheostat.collect.language.experts import demonstration, expert_rows, with_experts
from rheostat.collect.language.prompt_groups import Graded, join
from rheostat.credit.group_advantages import check_groups, informative_groups
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD
from rheostat.trajectories import join_columns


def batch_of(graded: Graded) -> Batch:
    """Convert a graded batch into a learner's batch."""
    return Batch(graded.trajectories, dict(graded.columns), metrics=dict(graded.metrics), facts={"graded": graded})


@dataclass(frozen=True)
class SamplingOptions:
    """The distribution completions are drawn from."""

    max_new_tokens: int = option(0, at_least=0)
    """Longest completion in tokens (in a conversation: longest turn); 0 takes the task's own limit."""
    temperature: float = option(1.0, above=0)
    """Sampling temperature; log-probabilities are defined after it on both sides."""
    top_k: int = option(0, at_least=0)
    """Sample among the k most likely tokens; 0 among all."""
    top_p: float = option(1.0, above=0, at_most=1)
    """Sample among the most likely tokens that hold this much probability."""

    @property
    def whole(self) -> bool:
        """Whether every token has a positive probability."""
        return not self.top_k and self.top_p == 1


@dataclass(frozen=True)
class Groups:
    """The policy samples a group of completions for each of the next prompts."""

    prompts: int = option(16, short="prompts_per_batch", at_least=1)
    """Prompts per batch."""
    size: int = option(16, short="group_size", at_least=1)
    """Completions per prompt (G)."""

    @property
    def group_size(self) -> int:
        """Rows of a group."""
        return self.size

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.prompts * self.size

    def collect(self, context: Any) -> Batch:
        """``[prompts * size, T]``, members of a group next to each other."""
        graded = context.collector.collect(self.prompts, self.size, context.sampling, version=context.updates, progress=context.progress)
        context.count_flops(FORWARD, graded.trajectories)
        check_groups(graded.trajectories.group[:, 0], self.size)
        return batch_of(graded)


@dataclass(frozen=True)
class MixedGroups(Groups):
    """The fresh groups of a mixed batch; after the switch, whole batches of fresh groups."""

    mixture: Mixture = Mixture()

    def collect(self, context: Any) -> Batch:
        prompts = self.mixture.counts(self.prompts)[0] if self.mixture.mixing(context) else self.prompts
        return Groups(prompts, self.size).collect(context)

    def describe(self) -> dict[str, int | str]:
        """Derived numbers, for printing."""
        fresh, stale = self.mixture.counts(self.prompts)
        until = f"up to update {self.mixture.until}" if self.mixture.until else "to the end"
        return {"groups of a mixed batch": f"{fresh} fresh, {stale} stale, {until}"}

    def check_budget(self, updates: int) -> None:
        """Refuse a switch after the end of the run."""
        if self.mixture.until >= updates:
            raise RheostatError(
                f"switch_after is {self.mixture.until}, but the run makes {updates} updates, so the policy would never be reincarnated: "
                "lower it, raise the budget, or set it to 0 to mix to the end."
            )


@dataclass(frozen=True)
class ExpertsInside:
    """Groups with ``count`` demonstrations in addition to the policy's completions of every prompt; both are graded."""

    inner: Any
    count: int
    uses_experts: ClassVar[bool] = True

    @property
    def group_size(self) -> int:
        """Rows of a group, the expert's included."""
        return self.inner.group_size + self.count

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.inner.rows // self.inner.group_size * self.group_size

    def describe(self) -> dict[str, int | str]:
        """For printing: the share that was asked for was rounded to whole completions."""
        return {"expert completions per group": f"{self.count} of {self.group_size}"}

    def collect(self, context: Any) -> Batch:
        """The policy's rows, then the expert's, which carry the numbers of their groups."""
        own: Graded = self.inner.collect(context).facts["graded"]
        graded = with_experts(context.collector, own, self.count, context.progress)
        check_groups(graded.trajectories.group[:, 0], self.group_size)
        return batch_of(graded)


@dataclass(frozen=True)
class AroundGroups:
    """What collectors around a collector of groups share; ``inner`` is that collector."""

    inner: Any = field(default=None, kw_only=True)

    def over(self, inner: Any) -> Self:
        """Wrap a collector of groups."""
        return replace(self, inner=inner)

    @property
    def group_size(self) -> int:
        """Rows of a group."""
        return int(self.inner.group_size)

    @property
    def rows(self) -> int:
        """Most rows of a batch."""
        return int(self.inner.rows)


@dataclass(frozen=True)
class Dynamic(AroundGroups):
    """Groups whose rewards differ, sampled until the batch is full (DAPO's dynamic sampling)."""

    kind: ClassVar[str] = "on"
    max_rounds: int = option(10, short="max_sampling_rounds", at_least=1)
    """Rounds of sampling before the batch is used as it is."""
    selects_groups: ClassVar[bool] = True

    def collect(self, context: Any) -> Batch:
        """At most as many groups as the inner collector's batch has; the last round's groups where none carries a signal."""
        wanted = self.rows // self.group_size
        parts: list[Batch] = []
        kept = seen = rounds = 0
        while True:
            part: Batch = self.inner.collect(context)
            rows = part.rows
            rounds, seen = rounds + 1, seen + wanted
            part = selected(part, informative_groups(rows.reward.sum(1), rows.group[:, 0], valid=rows.valid[:, 0]))
            kept += len(part.rows.group[:, 0].unique())
            parts.append(part)
            if kept >= wanted or rounds == self.max_rounds:
                break
        found = joined([part for part in parts if len(part)])
        found = part if found is None else selected(found, first_groups(found.rows.group[:, 0], wanted))
        found.metrics = found.metrics | {"sampling_rounds": rounds, "informative_share": kept / seen}
        return found


def selected(batch: Batch, keep: Tensor) -> Batch:
    """The rows of a bool tensor ``[B]`` of a graded batch, with their columns."""
    graded: Graded = batch.facts["graded"].select(keep)
    columns = {name: value[keep] for name, value in batch.columns.items()}
    return Batch(graded.trajectories, columns, metrics=batch.metrics, facts=batch.facts | {"graded": graded})


def joined(parts: list[Batch]) -> Batch | None:
    """Concatenate graded batches with their columns; None where there are none."""
    graded = join([part.facts["graded"] for part in parts], sum(map(len, parts)))
    if graded is None:
        return None
    columns = {name: join_columns([part.columns[name] for part in parts]) for name in parts[0].columns}
    return Batch(graded.trajectories, columns, metrics=parts[-1].metrics, facts=parts[-1].facts | {"graded": graded})


def first_groups(group: Tensor, count: int) -> Tensor:
    """``[B]`` bool: rows of the first ``count`` groups, whole, wherever their members stand.

    Args:
        group: ``[B]`` integers.
        count: how many groups.
    """
    first = list(dict.fromkeys(group.tolist()))[:count]
    return torch.isin(group, torch.tensor(first, dtype=group.dtype, device=group.device))


@dataclass(frozen=True)
class Demonstrations:
    """An expert writes one completion for each of the next prompts (or of the run's expert rows); nothing is sampled or graded."""

    prompts: int = option(128, short="prompts_per_batch", at_least=1)
    """Demonstrations per batch."""
    uses_experts: ClassVar[bool] = True
    ungraded: ClassVar[bool] = True
    group_size: ClassVar[int] = 1
    refuses: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("lag", "replay_share", "expert_share"), "nothing is sampled, every row is the expert's"
    )

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.prompts

    def bind(self, context: Any) -> None:
        """Every row of the run's file is a lesson, not one of each prompt."""
        if context.setup.experts is not None:
            context.collector.stream = context.setup.experts.stream(context.streams.seed)

    def collect(self, context: Any) -> Batch:
        """``[prompts, T]``, all of source EXPERT."""
        collector, setup = context.collector, context.setup
        drawn, numbers = collector.draw(self.prompts)
        texts = [demonstration(setup, prompt, collector.seed, number) for (prompt, _), number in zip(drawn, numbers, strict=True)]
        rows = expert_rows(setup, drawn, texts, numbers)
        collector.generated_tokens += rows.count()  # the budget counts the tokens that are learned from
        ones = torch.ones(len(drawn))
        scores = Scores(ones, ones.bool(), torch.zeros(len(drawn), dtype=torch.bool))
        metrics = {"completion_length": rows.mask.sum(1).float().mean().item()}
        return batch_of(Graded(rows, [prompt for prompt, _ in drawn], texts, scores, metrics))


def experts_of(share: float, size: int, what: str) -> int:
    """Members of a group that an expert writes.

    Args:
        share: of the group.
        size: of the group.
        what: names the share in sentences.

    Raises:
        RheostatError: the share is less than half a member, or leaves no room for the policy's own.
    """
    if not share:
        return 0
    count = int(share * size + 0.5)
    if count < 1:
        raise RheostatError(f"{what} {share:g} of a group of {size} is no whole completion: raise it, or group_size.")
    if count >= size:
        raise RheostatError(f"{what} {share:g} of a group of {size} leaves no completion of the policy's own: lower it.")
    return count
