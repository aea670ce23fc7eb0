"""WHAT IS IT WORTH? by comparison: how strongly each of several answers is preferred, as the policy itself or another judge says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.collect.language.pairs import COLUMNS, answers_of
from rheostat.collect.language.self_judge import SelfJudge
from rheostat.credit.preference_measures import Judge, both_orders
from rheostat.credit.preference_strength import middle, ranking, strengths
from rheostat.errors import RheostatError
from rheostat.learner.models import Lagged
from rheostat.masking import masked_mean
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.tasks.language.preference_rows import PreferencePrompts


def strength_of(first: Tensor, second: Tensor) -> Tensor:
    """A judge's probability that an answer is the better one, the mean over both orders, in which it stands first and second."""
    return 0.5 * (first + second)


@dataclass(frozen=True)
class PreferenceStrength:
    """Ranks the answers to each prompt by what a judge says of them, and puts a probability on every pair of them (an annotation).

    A pair is judged in both orders. Each answer is compared with one of them, the baseline, which itself stands at 1/2; or with ``labels
    direct`` with every other one. Answers about which the judge says nothing are left out.
    """

    by: Literal["self", "judge"] = option("self", short="compare_by")
    """What compares two answers: the policy itself, or the run's judge of pairs (--judge)."""
    labels: Literal["composed", "difference", "direct", "hard"] = option("composed")
    """Probability of a pair from those against the baseline: composed as Bradley-Terry's (composed), their difference (difference), that
    pair judged by itself (direct), or only which is larger (hard: online DPO)."""
    clip: float = option(0.02, short="label_clip", above=0, below=0.5)
    """A probability against the baseline is taken as at least this, and at most 1 less this."""
    baseline: Literal["middle", "first"] = option("middle")
    """The common baseline: the answer whose mean log-probability is the median of its group, or the first one."""
    refresh: int = option(1, short="judge_refresh_every", at_least=0)
    """The policy judges as it was when a copy was last taken, after every so many updates: 1 is the present one, 0 that of the start."""
    floor: float = option(0.0, short="judge_floor", at_least=0, below=1)
    """A run ends where the judge agrees with fewer than this share of held-out pairs; 0 never ends it."""
    writes: ClassVar[Sequence[str]] = ("rank", "strength")
    unrewarded: ClassVar[bool] = True
    """Rewards are only watched, if there are any."""

    @property
    def judge(self) -> str:
        """Name of the model that judges."""
        return "policy" if self.refresh == 1 else "judge"

    @property
    def own_models(self) -> dict[str, Any]:
        """The copy that judges, where it is not the present policy."""
        return {} if self.by == "judge" or self.refresh == 1 else {"judge": Lagged(0, refresh=self.refresh)}

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found = {}
        if self.labels != "composed":
            found["clip"] = f"labels {self.labels} composes nothing, so use labels composed, or leave it alone"
        if self.labels == "direct":
            found["baseline"] = "labels direct compares every pair and has no baseline; leave it alone"
        if self.by == "judge":
            found["refresh"] = "the run's judge compares answers, not the policy; leave it alone"
        return found

    def bind(self, context: Any) -> None:
        """Refuse a run without the judge that is asked, or without the pairs that it is held to.

        Raises:
            RheostatError: naming what is missing.
        """
        if self.by == "judge" and context.setup.judge is None:
            raise RheostatError("compare_by judge asks a judge of pairs, and there is none: name one with --judge.")
        if self.by == "self":
            SelfJudge(context, self.judge)
        if self.floor and not isinstance(context.setup.task, PreferencePrompts):
            raise RheostatError("judge_floor is about held-out pairs, and there are none: give a file of them with --preferences.")

    def check_budget(self, updates: int) -> None:
        """Refuse a copy that would never be taken anew.

        Raises:
            RheostatError: the run makes no more updates than lie between two copies.
        """
        if self.refresh > 1 and self.refresh >= updates:
            raise RheostatError(
                f"judge_refresh_every is {self.refresh}, but the whole run makes about {updates} updates, so the judge would never be "
                "taken anew: lower it, raise the budget, or say so with 0."
            )

    def asked(self, context: Any) -> Judge:
        """Who compares two answers."""
        found: Judge = context.setup.judge if self.by == "judge" else SelfJudge(context, self.judge)
        return found

    def __call__(self, context: Any, batch: Batch) -> Batch:
        """Columns ``rank`` int64 ``[B]`` and ``strength`` float64 ``[B, K]``; rows that are in no pair are masked."""
        size, rows = context.group_size, batch.rows
        there = rows.mask.any(1).view(-1, size)
        first, second = self.compared(context, batch, there)
        said = strength_of(first, second)
        if self.labels == "direct":
            known = ~said.isnan()
            q = torch.where(known.any(-1), said.nanmean(-1), math.nan)
        else:
            q = said
            said = strengths(q, self.labels, self.clip)
        order = ranking(q)
        rank = order.argsort(-1)
        said = said.masked_fill(torch.eye(size, dtype=torch.bool), math.nan)
        paired = ~said.isnan().all(-1)
        rows.mask = rows.mask & paired.flatten()[:, None]
        batch.columns["rank"] = rank.flatten()
        batch.columns["strength"] = said.gather(-1, order[:, None, :].expand(said.shape)).flatten(0, 1)
        batch.metrics |= self.told(batch, said, 0.5 * (first - second))
        return batch

    def compared(self, context: Any, batch: Batch, there: Tensor) -> tuple[Tensor, Tensor]:
        """What the judge says where an answer stands first, and where it stands second: against the baseline ``[X, K]``, or with ``labels
        direct`` against every other answer ``[X, K, K]``; NaN where nobody was asked."""
        graded, (count, size) = batch.facts["graded"], there.shape
        if self.labels == "direct":
            asked = [(x, i, j) for x in range(count) for i in range(size) for j in range(i + 1, size) if there[x, i] and there[x, j]]
            shape: tuple[int, ...] = (count, size, size)
        else:
            score = masked_mean(batch.rows.sampler_logp.nan_to_num(), batch.rows.mask, -1).view(count, size)
            base = middle(score, there) if self.baseline == "middle" else there.int().argmax(-1)
            asked = [(x, i, int(base[x])) for x in range(count) for i in range(size) if there[x, i] and i != base[x]]
            shape = (count, size)
        first, second = (torch.full(shape, math.nan, dtype=torch.float64) for _ in range(2))
        if asked:
            text = graded.completions
            mine, other = ([text[x * size + place[k]] for x, *place in asked] for k in (0, 1))
            found = both_orders(self.asked(context), [graded.prompts[x * size] for x, *_ in asked], mine, other)
            x, i, j = torch.tensor(asked).unbind(1)
            for values, one in zip((first, second), found, strict=True):
                values[(x, i, j) if self.labels == "direct" else (x, i)] = one.double()
        if self.labels == "direct":
            x, i, j = torch.tensor(asked, dtype=torch.int64).reshape(-1, 3).unbind(1)
            first[x, j, i], second[x, j, i] = 1 - second[x, i, j], 1 - first[x, i, j]
        else:
            for values in (first, second):
                values[torch.arange(count), base] = 0.5
                values[there.sum(-1) < 2] = math.nan
        return first, second

    def told(self, batch: Batch, strength: Tensor, place: Tensor) -> Metrics:
        """Of strengths ``[X, K, K]``: pairs per prompt, how far they are from 1/2, whether rewards agree, and the judge's bias for the
        first place, from half the difference of both orders."""
        told, rows = ~strength.isnan(), batch.rows
        reward = torch.where(rows.valid[:, 0], rows.reward.sum(1), math.nan).view(strength.shape[:2])
        gap = reward[:, :, None] - reward[:, None, :]
        known = told & ~gap.isnan() & (gap != 0)
        found = {"pairs_per_prompt": 0.5 * told.sum().item() / len(strength)}
        if bool(told.any()):
            found["strength_distance"] = (strength[told] - 0.5).abs().mean().item()
            found["position_bias"] = place[~place.isnan()].mean().item()
        if bool(known.any()):
            agrees = torch.where(gap > 0, strength, 1 - strength)[known]
            found["judge_agreement"] = ((agrees > 0.5).float() + 0.5 * (agrees == 0.5)).mean().item()
        return found

    def measure(self, context: Any, count: int) -> Metrics:
        """How the judge ranks held-out pairs of a file, in both orders; empty without them. Ends a run whose judge is below the floor."""
        task = context.setup.task
        if not isinstance(task, PreferencePrompts):
            return {}
        held_out = [prompt for prompt in task.held_out(count) if set(COLUMNS) <= set(prompt.columns)]
        with context.evaluating():
            pairs = [answers_of(prompt) for prompt in held_out]
            first, second = both_orders(self.asked(context), held_out, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
        said = strength_of(first, second)
        known = ~said.isnan()
        if not bool(known.any()):
            return {}
        accuracy = (said[known] > 0.5).float().mean().item()
        if accuracy < self.floor:
            context.ended = f"the judge agrees with {accuracy:.0%} of held-out pairs, fewer than judge_floor asks for ({self.floor:.0%})"
        return {"validation_judge_accuracy": accuracy, "validation_judge_bias": (0.5 * (first - second))[known].mean().item()}
