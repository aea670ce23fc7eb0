"""Single answers that somebody has judged: labelled or scored ones of a file, and the policy's own by their rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rheostat.collect.language.experts import expert_rows
from rheostat.collect.language.language_collectors import Groups, batch_of
from rheostat.collect.language.prompt_groups import Graded
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.tasks.language.demonstrations import Completion
from rheostat.trajectories import Source


@dataclass(frozen=True)
class JudgedAnswers:
    """The next answers of a file of preferences; nothing is sampled or graded (a collector)."""

    answers: int = option(64, short="answers_per_batch", at_least=2)
    """Answers per batch."""
    kind: ClassVar[str] = "file"
    group_size: ClassVar[int] = 1
    ungraded: ClassVar[bool] = True
    annotated: ClassVar[bool] = True
    single_turn: ClassVar[str] = "a judged answer is one completion"
    column: ClassVar[str]
    refuses: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("lag", "replay_share", "expert_share"), "nothing is sampled, every row is an annotation"
    )

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return self.answers

    def take(self, context: Any) -> tuple[Batch, list[Any]]:
        """The next answers as rows of source ANNOTATION, and what was said of each.

        Raises:
            RheostatError: a row without an answer or a verdict, or an answer that is empty or too long.
        """
        collector = context.collector
        drawn, numbers = collector.draw(self.answers)
        for prompt, _ in drawn:
            if not isinstance(prompt.columns.get("completion"), str) or prompt.columns.get(self.column) is None:
                raise RheostatError(
                    f"The prompt with key {prompt.key} has no judged answer: give a file of preferences with the columns prompt, "
                    f"completion and {self.column} (--preferences FILE)."
                )
        texts: list[str] = [
            Completion.of(prompt.columns["completion"], prompt.columns) for prompt, _ in drawn
        ]  # one that was cut has no end token
        rows = expert_rows(context.setup, drawn, texts, numbers)
        rows.source = torch.full(rows.shape, int(Source.ANNOTATION))
        ones = torch.ones(len(drawn))
        scores = Scores(ones, ones.bool(), torch.zeros(len(drawn), dtype=torch.bool))
        batch = batch_of(Graded(rows, [prompt for prompt, _ in drawn], texts, scores))
        batch.metrics = {"completion_length": rows.mask.sum(1).float().mean().item()}
        collector.generated_tokens += rows.count()  # the budget counts the tokens that are learned from
        return batch, [prompt.columns[self.column] for prompt, _ in drawn]


@dataclass(frozen=True)
class LabelledAnswers(JudgedAnswers):
    """The next labelled answers: desirable ones and others; a pair of a file is one of each."""

    lesson: ClassVar[str] = "labels"
    column: ClassVar[str] = "label"
    writes: ClassVar[tuple[str, ...]] = ("desirable",)

    def collect(self, context: Any) -> Batch:
        """``[answers, T]``, column ``desirable`` bool ``[B]``."""
        batch, labels = self.take(context)
        batch.columns["desirable"] = torch.tensor([bool(label) for label in labels])
        batch.metrics["desirable_share"] = batch.columns["desirable"].float().mean().item()
        return batch


@dataclass(frozen=True)
class ScoredAnswers(JudgedAnswers):
    """The next scored answers, whose scores are their rewards."""

    lesson: ClassVar[str] = "scores"
    column: ClassVar[str] = "score"

    def collect(self, context: Any) -> Batch:
        """``[answers, T]``; the reward of a row stands on its last token."""
        batch, scores = self.take(context)
        rewards = torch.tensor([float(score) for score in scores])
        batch.rows.reward = reward_at_last_token(rewards, batch.rows.mask)
        batch.metrics["reward"] = rewards.mean().item()
        return batch


@dataclass(frozen=True)
class OwnAnswers(Groups):
    """The policy samples a group of completions for each of the next prompts, and a reward judges them."""

    kind: ClassVar[str] = "sampled"
    lesson: ClassVar[str] = "scores"


@dataclass(frozen=True)
class OwnLabels(Groups):
    """The policy samples a group of completions for each of the next prompts; those with a large enough reward are desirable."""

    kind: ClassVar[str] = "sampled"
    lesson: ClassVar[str] = "labels"
    threshold: float = option(1.0, short="desirable_from")
    """Smallest reward of a desirable completion."""
    writes: ClassVar[tuple[str, ...]] = ("desirable",)
    single_turn: ClassVar[str] = "a judged answer is one completion"

    def collect(self, context: Any) -> Batch:
        """``[prompts * size, T]``, column ``desirable`` bool ``[B]``."""
        batch = super().collect(context)
        batch.columns["desirable"] = batch.rows.reward.sum(1) >= self.threshold
        batch.metrics["desirable_share"] = batch.columns["desirable"].float().mean().item()
        return batch
