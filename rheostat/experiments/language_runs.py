"""Evaluating a language run: several completions of every validation prompt, from a random stream of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.analysis.pass_at_k import LanguageSummary, clustered_mean, summarise, weighted_vote
from rheostat.analysis.shares import share_of
from rheostat.analysis.statistics import Interval
from rheostat.collect.language.prompt_groups import Graded
from rheostat.collect.language.self_verification import Rewards, judge, solution_rewards
from rheostat.credit.verifiers import Verifier, WeightedSum, extractor
from rheostat.errors import RheostatError, unknown
from rheostat.masking import masked_mean
from rheostat.tasks.language.task_interface import Prompt

PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class Samples:
    """Completions of validation prompts: rows of one prompt are next to each other."""

    drawn: list[tuple[Prompt, list[int]]]
    """Prompts with their token ids."""
    parts: list[Graded]
    entropies: list[Tensor]
    """Mean entropy of every completion, nats per token."""
    size: int
    """Completions per prompt."""

    @property
    def shape(self) -> tuple[int, int]:
        """Prompts and completions of each."""
        return len(self.drawn), self.size

    @property
    def valid(self) -> Tensor:
        """``[P, n]`` bool."""
        return torch.cat([part.scores.valid for part in self.parts]).view(self.shape)

    def right(self, threshold: float, reward: str | None = None) -> Tensor:
        """``[P, n]`` bool: completions that earn at least so much, of one of several rewards or of their sum."""
        return (self.earned(reward) >= threshold) & self.valid

    def earned(self, reward: str | None = None) -> Tensor:
        """``[P, n]`` float32: what completions earn, of one of several rewards or of their sum; NaN where it was not graded."""
        return torch.cat([part.scores.reward if reward is None else part.scores.parts[reward] for part in self.parts]).view(self.shape)


def sample_validation(run: Any, prompts: int, samples: int) -> Samples:
    """Completions of the run's validation prompts, from a random stream of their own; the run's own training does not change.

    Raises:
        RheostatError: fewer than one prompt or sample.
    """
    if prompts < 1 or samples < 1:
        raise RheostatError(f"{prompts} prompts with {samples} completions each cannot be evaluated: take at least 1 of both.")
    context = run.method.context
    setup = context.setup
    encoded = [(prompt, setup.encoder.encode(prompt)) for prompt in setup.task.validation(prompts)]
    drawn = [(prompt, ids) for prompt, ids in encoded if ids is not None]
    parts: list[Graded] = []
    entropies: list[Tensor] = []
    with context.evaluating():
        for first in range(0, len(drawn), PROMPTS_AT_ONCE):
            some = drawn[first : first + PROMPTS_AT_ONCE]
            numbers = list(range(first, first + len(some)))
            graded = context.collector.sample(
                some, samples, context.sampling, numbers=numbers, purpose="evaluation", version=context.updates
            )
            rows = graded.trajectories
            with torch.no_grad():
                scores = context.score(rows)
            entropies.append(torch.stack([masked_mean(row, mask) for row, mask in zip(scores.entropy, rows.mask, strict=True)]))
            parts.append(graded)
    return Samples(drawn, parts, entropies, samples)


def deciding_reward(run: Any, name: str | None = None) -> str | None:
    """The reward by which a completion counts as right: the one that is named, else the first of several, else None for the only one.

    Several rewards are added up with weights, so their sum says nothing by itself about right and wrong.

    Raises:
        RheostatError: there is no reward of this name.
    """
    verifier = run.method.context.setup.verifier
    several = verifier.names if isinstance(verifier, WeightedSum) else []
    if name is None or (several == [] and name == verifier.name):
        return several[0] if several else None
    if name not in several:
        raise unknown("reward of this run", name, several or [verifier.name])
    return name


def evaluate_language(
    run: Any,
    prompts: int,
    samples: int,
    *,
    threshold: float = 1.0,
    right_by: str | None = None,
    answers: str | None = None,
    self_verify: int = 0,
) -> LanguageSummary:
    """Sample and grade; the run's own training does not change.

    Args:
        run: a :class:`~rheostat.training.run.Run` of a language method.
        prompts: from the fixed validation split, at most.
        samples: completions per prompt.
        threshold: smallest reward that counts as right.
        right_by: name of the reward that is compared with it; see :func:`deciding_reward`.
        answers: how to find the answer of a completion for the majority vote (a name from
            :data:`~rheostat.credit.verifiers.EXTRACTORS`); None takes the grader's answers, and no vote where it gives none.

    Returns:
        pass@k, vote, mean rewards, length, entropy, invalid and truncated share, and the task's own metrics, with intervals clustered by
        prompt.

    Raises:
        RheostatError: fewer than one prompt or sample, an unknown reward or extractor, no validation prompt, or nothing that could be
            graded.
    """
    if not run.method.context.setup.gradable:
        raise RheostatError(
            f"{run.settings.method} learned from annotated answers here and has no reward that grades samples: train it with --reward for "
            "that, or look at its report."
        )
    decides = deciding_reward(run, right_by)
    found = sample_validation(run, prompts, samples)
    parts, shape, setup = found.parts, found.shape, run.method.context.setup
    texts = [text for part in parts for text in part.completions]
    asked = [prompt for part in parts for prompt in part.prompts]
    named = _answers(parts, texts, samples, answers)
    if self_verify and named is None:
        raise RheostatError("A vote needs answers, which this grader does not name: say how to find them (--answers, or answers=).")
    right = found.right(threshold, decides)
    summary = summarise(
        right.numpy(),
        torch.cat([part.trajectories.mask.sum(1) for part in parts]).view(shape).numpy(),
        valid=found.valid.numpy(),
        answers=named,
        entropy=torch.cat(found.entropies).view(shape).numpy(),
        truncated=torch.cat([part.trajectories.truncated.any(1) for part in parts]).view(shape).numpy(),
        task={name: values.view(shape).numpy() for name, values in setup.task.metrics(asked, texts).items()},
        families=[setup.task.family(prompt) for prompt, _ in found.drawn],
        chance=setup.task.chance if threshold == 1.0 else None,
    )
    more = _mean_rewards(found, setup.verifier) | _readouts(run, found)
    if self_verify and named:
        more |= _self_verified(run, found, named, self_verify, right)
    return replace(summary, task=more | dict(summary.task))


def _mean_rewards(found: Samples, verifier: Verifier) -> dict[str, Interval]:
    """The mean reward, and that of each of several, over completions that were graded."""
    names = verifier.names if isinstance(verifier, WeightedSum) else []
    earned = {"reward": found.earned()} | {f"reward {name}": found.earned(name) for name in names}
    known = {name: (found.valid & ~values.isnan()).numpy() for name, values in earned.items()}
    return {name: clustered_mean(values.nan_to_num().numpy(), valid=known[name]) for name, values in earned.items() if known[name].any()}


def _readouts(run: Any, found: Samples) -> dict[str, Interval]:
    """What a collector tells of every completion, such as how sure it was."""
    names = [name for name in getattr(run.method.context.collector, "readouts", ()) if all(name in part.columns for part in found.parts)]
    columns = {name: torch.cat([part.columns[name] for part in found.parts]).view(found.shape) for name in names}
    return {name: clustered_mean(values.nan_to_num().numpy(), valid=(~values.isnan()).numpy()) for name, values in columns.items()}


def _self_verified(run: Any, found: Samples, answers: list[list[str | None]], size: int, correct: Tensor) -> dict[str, Interval]:
    """The vote weighted by the model's own judgements, and the accuracy of these, balanced over prompts' completions."""
    context, config = run.method.context, run.method.config
    rewards: Rewards = config.verification.rewards if hasattr(config, "verification") else "task"
    scores: list[Tensor] = []
    right: list[Tensor] = []
    with context.evaluating():
        for number, part in enumerate(found.parts):
            earned = solution_rewards(part.scores, rewards)
            chosen = part.scores.valid.nonzero()[:, 0].tolist()
            options: dict[str, Any] = {"rewards": rewards, "purpose": f"evaluation of verification {number}", "version": context.updates}
            judged = judge(context.collector, part, earned, chosen, size, context.sampling, **options) if chosen else None
            weight, hits = torch.full((len(part.prompts),), math.nan), torch.full((len(part.prompts),), math.nan)
            if judged is not None:
                least = -1.0 if rewards == "three-valued" else 0.0
                stated = torch.tensor([least if said is None else said for said in judged.stated]).view(-1, size)
                row = torch.tensor(judged.rows)
                weight[row] = stated.mean(1)
                hits[row] = (stated == judged.earned.view(-1, size)).float().mean(1)
            scores.append(weight)
            right.append(hits)
    weights, accuracy = (torch.cat(each).view(found.shape).numpy() for each in (scores, right))
    known = ~np.isnan(weights)
    votes = weighted_vote(answers, np.nan_to_num(weights), correct.numpy(), valid=known)
    return {"self-verified vote": share_of(votes), "verification accuracy": clustered_mean(np.nan_to_num(accuracy), valid=known)}


def _answers(parts: list[Graded], texts: list[str], samples: int, name: str | None) -> list[list[str | None]] | None:
    """[P][n] answers for the vote; None where they cannot be extracted."""
    if name is not None:
        find = extractor(name)
        found = [find(text) for text in texts]
    elif all("answer" in part.scores.notes for part in parts):
        found = [note or None for part in parts for note in part.scores.notes["answer"]]
    else:
        return None
    return [found[first : first + samples] for first in range(0, len(found), samples)]


def result_rows(summary: LanguageSummary) -> list[dict[str, Any]]:
    """One row per result: name, estimate and, where there is one, the 95 % interval."""
    intervals = {f"pass@{k}": interval for k, interval in summary.pass_at.items()}
    intervals |= {f"pass@{k} ({kind})": interval for kind, found in summary.families.items() for k, interval in found.items()}
    if summary.majority is not None:
        intervals["majority vote"] = summary.majority
    intervals |= {"length": summary.length, "invalid": summary.invalid, **summary.task}
    rows: list[dict[str, Any]] = [
        {"result": name, "estimate": interval.estimate, "low": interval.low, "high": interval.high} for name, interval in intervals.items()
    ]
    extra = {"chance": summary.chance, "entropy": summary.entropy, "truncated": summary.truncated}
    return rows + [{"result": name, "estimate": value, "low": None, "high": None} for name, value in extra.items() if value is not None]
