"""Preference pairs of the policy's own: of several completions of a prompt the best and the worst, as a reward orders them; or one of its
wrong completions against an expert's.

How fresh they are is the dial's: sampled by the present policy (online), by a copy that is taken anew every few updates (semi-online,
``dial.refresh_every``), or by the policy of the start (offline, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.collect.language.experts import with_experts
from rheostat.collect.language.language_collectors import Groups, batch_of, selected
from rheostat.credit.preference_measures import both_orders
from rheostat.errors import RheostatError
from rheostat.objectives.preference import best_of_n
from rheostat.options import option
from rheostat.parts import Batch


@dataclass(frozen=True)
class SampledPairs:
    """The policy answers the next prompts several times; the best and the worst answer of each become a pair (a collector)."""

    prompts: int = option(32, short="prompts_per_batch", at_least=1)
    """Prompts per batch, each of which gives at most one pair."""
    answers: int = option(2, short="group_size", at_least=2)
    """Completions per prompt, of which the best and the worst are compared."""
    ties: Literal["skip", "first"] = option("skip")
    """Answers of equal reward teach nothing (skip), or the first is taken as the better one, as in TRL."""
    missing_end_penalty: float = option(0.0, at_least=0)
    """Subtracted from the reward of a completion that was cut at the length limit, before answers are compared."""
    by: Literal["reward", "judge"] = option("reward", short="compare_by")
    """What compares two answers: their rewards, or the run's judge of pairs in both orders, whose rewards are then only watched."""
    kind: ClassVar[str] = "sampled"
    lesson: ClassVar[str] = "pairs"
    makes_units: ClassVar[bool] = True
    writes: ClassVar[tuple[str, ...]] = ("chosen", "margin")
    refuses: ClassVar[Mapping[str, str]] = {
        "replay_share": "its pairs are thrown away after their update",
        "expert_share": "both answers of a pair are the policy's",
    }

    def __post_init__(self) -> None:
        if self.by == "judge" and self.answers != 2:
            raise RheostatError("A judge compares two answers: leave group_size at 2, or compare by reward.")

    def bind(self, context: Any) -> None:
        """Refuse a run without the judge that is asked."""
        if self.by == "judge" and context.setup.judge is None:
            raise RheostatError("compare_by judge asks a judge of pairs, and there is none: name one with --judge.")

    @property
    def group_size(self) -> int:
        """Rows of a pair."""
        return 2

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return 2 * self.prompts

    def collect(self, context: Any) -> Batch:
        """``[2 * prompts, T]``: chosen and rejected in turn, column ``chosen`` bool ``[B]``; pairs that teach nothing are masked."""
        batch = Groups(self.prompts, self.answers).collect(context)
        rows = batch.rows
        graded = batch.facts["graded"]
        reward = rows.reward.sum(1) if self.by == "reward" else self.verdicts(context.setup.judge, graded.prompts, graded.completions)
        cut, told = rows.truncated.any(1), rows.valid[:, 0] & ~reward.isnan()
        reward = reward.nan_to_num()
        chosen, rejected = self.compared(reward, cut)
        index, worth = torch.stack([chosen, rejected], 1).flatten(), self.worth(reward, cut)
        gap = worth[chosen] - worth[rejected]
        told = told.view(self.prompts, self.answers).all(1) & ((gap > 0) | (self.ties == "first"))
        found = selected(batch, index)
        found.rows.mask = found.rows.mask & told.repeat_interleave(2)[:, None]
        found.units = found.rows.group[:, 0].clone()
        found.columns["chosen"] = torch.arange(len(index)) % 2 == 0
        found.columns["margin"] = gap.repeat_interleave(2)
        found.metrics = batch.metrics | {"paired_share": told.float().mean().item(), "reward_gap": gap.mean().item()}
        return found

    @staticmethod
    def verdicts(judge: Any, prompts: list[Any], texts: list[str]) -> Tensor:
        """``[B]`` the probability that each of two answers is the better one, over both orders; NaN where the judge says nothing."""
        first, second = both_orders(judge, prompts[::2], texts[::2], texts[1::2])
        won = 0.5 * (first + second)
        return torch.stack([won, 1 - won], 1).flatten()

    def worth(self, reward: Tensor, cut: Tensor) -> Tensor:
        """``[B]`` what completions are compared by, from their rewards and whether they were cut."""
        return reward - self.missing_end_penalty * cut

    def compared(self, reward: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``[X]`` of the chosen and of the rejected completions, from rewards ``[X * answers]`` and whether they were cut."""
        best, worst = ends(self.worth(reward, cut).view(-1, self.answers))
        first = torch.arange(len(best)) * self.answers
        return first + best, first + worst


@dataclass(frozen=True)
class TaughtPairs:
    """The policy answers the next prompts several times; an expert's answer is preferred to a wrong one of these (a collector).

    Only the rejected side is the policy's own. A prompt makes no pair where all its completions are right, or where the expert is wrong.
    """

    prompts: int = option(32, short="prompts_per_batch", at_least=1)
    """Prompts per batch, each of which gives at most one pair."""
    answers: int = option(4, short="group_size", at_least=1)
    """Completions per prompt, of which the first wrong one is rejected."""
    right: float = option(1.0, short="right_at_least")
    """Smallest reward of a right answer, the policy's or the expert's."""
    kind: ClassVar[str] = "taught"
    lesson: ClassVar[str] = "pairs"
    makes_units: ClassVar[bool] = True
    uses_experts: ClassVar[bool] = True
    group_size: ClassVar[int] = 2
    writes: ClassVar[tuple[str, ...]] = ("chosen", "margin")
    single_turn: ClassVar[str] = "an expert's answer is one completion"
    refuses: ClassVar[Mapping[str, str]] = {
        "replay_share": "its pairs are thrown away after their update",
        "expert_share": "the chosen answer of every pair is an expert's already",
    }

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return 2 * self.prompts

    def collect(self, context: Any) -> Batch:
        """``[2 * prompts, T]``: the expert's answer and the policy's in turn, column ``chosen`` bool ``[B]``; prompts without a pair are
        masked."""
        batch = Groups(self.prompts, self.answers).collect(context)
        joined = with_experts(context.collector, batch.facts["graded"], 1, context.progress)
        rows = joined.trajectories
        reward, told = rows.reward.sum(1), rows.valid[:, 0]
        own = len(batch)
        wrong = (told & (reward < self.right))[:own].view(self.prompts, self.answers)
        first = torch.arange(self.prompts)
        index = torch.stack([own + first, self.answers * first + wrong.int().argmax(1)], 1).flatten()
        paired = wrong.any(1) & (told & (reward >= self.right))[own:]
        found = selected(batch_of(joined), index)
        found.rows.mask = found.rows.mask & paired.repeat_interleave(2)[:, None]
        found.units = found.rows.group[:, 0].clone()
        found.columns["chosen"] = torch.arange(len(index)) % 2 == 0
        found.columns["margin"] = (reward[index[::2]] - reward[index[1::2]]).repeat_interleave(2)
        found.metrics = joined.metrics | {"paired_share": paired.float().mean().item(), "wrong_share": wrong.float().mean().item()}
        return found


def ends(reward: Tensor) -> tuple[Tensor, Tensor]:
    """Indices ``[X]`` of the best and of the worst of N rewards ``[X, N]``: of equal ones the first is best, and another one worst."""
    best = best_of_n(reward)
    others = reward.scatter(1, best[:, None], float("inf"))
    return best, best_of_n(-others)
