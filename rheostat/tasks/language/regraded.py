"""A task with other rewards than its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rheostat.credit.verifiers import Verifier, load_rewards
from rheostat.errors import RheostatError
from rheostat.tasks.language.task_interface import LanguageTask, Prompt, PromptStream, Split


class Regraded(LanguageTask):
    """Another task with other graders.

    Args:
        task: that makes the prompts.
        rewards: functions, verifiers or names.

    Raises:
        RheostatError: a task of several turns, which its environment grades.
    """

    def __init__(self, task: LanguageTask, rewards: Sequence[Any]) -> None:
        if task.episodes() is not None:
            raise RheostatError(f"{task.name} has several turns, which its environment grades: leave the rewards out.")
        self.task, self.rewards = task, list(rewards)
        self.name, self.limits, self.validation_share = task.name, task.limits, task.validation_share

    def verifier(self, weights: Sequence[float] | None = None, **options: Any) -> Verifier:
        """The rewards given, made anew."""
        return load_rewards(self.rewards, weights, **({"sandbox": self.sandbox, "needs": self.reward_needs} | options))

    @property
    def base(self) -> str | None:
        """Of the task."""
        return self.task.base

    def tokenizer(self) -> Any:
        """Of the task."""
        return self.task.tokenizer()

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Of the task."""
        return self.task.block(number, split, seed)

    def prompts(self, split: Split = "train", seed: int = 0) -> PromptStream:
        """Of the task."""
        return self.task.prompts(split, seed)

    def validation(self, count: int = 500) -> list[Prompt]:
        """Of the task."""
        return self.task.validation(count)

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """Of the task."""
        return self.task.locate(prompt)

    def expert(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """Of the task."""
        return self.task.expert(prompt, rng)

    def family(self, prompt: Prompt) -> str | None:
        """Of the task. (Its chance is not: that depends on the graders.)"""
        return self.task.family(prompt)

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """Of the task."""
        return self.task.metrics(prompts, completions)
