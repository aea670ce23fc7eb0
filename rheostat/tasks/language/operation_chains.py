"""``operation-chains``: reach a number from another one by a few operations modulo 11, each worked out, in characters.

``5?9:`` asks for a way from 5 to 9, and ``*2=10;+1=0;-3=8;+1=9#`` is one: the last step ends with ``#``. There are
many ways to most targets, and a program knows the shortest. A model that has read chains of random operations works every operation out,
stops where it has arrived, and chooses blindly: what is left to learn is which operation to choose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.chain_sum import BLOCK, apply
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split, is_validation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

SEPARATOR, END = ";", "#"
_PROBLEM = re.compile(r"(\d+)\?(\d+):")
_OPERATION = re.compile(r"[-+*][1-9]\d{0,2}")
_STEP = re.compile(r"([-+*]\d{1,3})=(\d{1,4})")


@dataclass(frozen=True)
class OperationChains(LanguageTask):
    """The task and its knobs.

    Raises:
        RheostatError: knobs that make no task.
    """

    modulus: int = 11
    operations: tuple[str, ...] = ("+1", "*2", "-3", "*5")
    """What a step may do: a sign and a number."""
    most_steps: int = 5
    """Steps of a chain at most."""
    validation_share: float = 0.3
    """Share of all prompts set aside for validation."""
    name: str = "operation-chains"

    def __post_init__(self) -> None:
        if not 3 <= self.modulus <= 1000 or not 1 <= self.most_steps <= 20:
            raise RheostatError(
                f"operation-chains needs a modulus from 3 to 1000 and most_steps from 1 to 20; got {self.modulus} and {self.most_steps}."
            )
        known = all(_OPERATION.fullmatch(each) for each in self.operations)
        if not known or not self.operations or len(set(self.operations)) < len(self.operations):
            raise RheostatError(f"The operations of operation-chains are different ones such as '+1' and '*5'; got {self.operations}.")
        if not 0 <= self.validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {self.validation_share}.")
        if not self._distances:
            raise RheostatError(f"No number is reached from another by {', '.join(self.operations)} modulo {self.modulus}.")

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Enough for the longest prompt, and for as many steps as a chain may have, with their end and two to spare."""
        number = len(str(self.modulus - 1))
        step = max(map(len, self.operations)) + number + 2
        return Limits(2 * number + 2, self.most_steps * step + 3)

    @property
    def base(self) -> str:
        """The recipe that has read random chains."""
        return "operation-chains"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Characters, 21 symbols."""
        from rheostat.tasks.language.characters import character_tokenizer

        return character_tokenizer()

    def verifier(self) -> Verifier:
        """Every step is right and the last one arrives."""
        return ChainVerifier(self)

    def after(self, operation: str, value: int) -> int:
        """What an operation makes of a value."""
        return apply(operation[0], value, int(operation[1:]), self.modulus)

    @cached_property
    def _distances(self) -> dict[tuple[int, int], int]:
        """Steps of the shortest way from a value to another one, where there is a way of at most ``most_steps``."""
        found: dict[tuple[int, int], int] = {}
        for start in range(self.modulus):
            reached, now = {start}, {start}
            for steps in range(1, self.most_steps + 1):
                now = {self.after(each, value) for value in now for each in self.operations} - reached
                reached |= now
                found |= {(start, value): steps for value in now}
        return found

    @cached_property
    def _problems(self) -> list[tuple[int, int]]:
        return sorted(self._distances)

    def prompt(self, start: int, target: int) -> Prompt:
        """The prompt of a way."""
        return Prompt(f"{start}?{target}:", None, {"start": start, "target": target, "distance": self._distances[start, target]})

    def family(self, prompt: Prompt) -> str | None:
        """Steps of the shortest way."""
        return f"distance {prompt.columns['distance']}"

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The prompts of one draw of 256 that belong to the split."""
        rng = np.random.default_rng([derive_seed(seed, self.name, split), number])
        prompts = [self.prompt(*self._problems[place]) for place in rng.integers(len(self._problems), size=BLOCK).tolist()]
        return [prompt for prompt in prompts if is_validation(prompt.key, self.validation_share) == (split == "validation")]

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """The task's own form of a prompt from elsewhere; None for what is none."""
        found = _PROBLEM.fullmatch(str(prompt.content))
        if not found or (int(found[1]), int(found[2])) not in self._distances:
            return None
        own = self.prompt(int(found[1]), int(found[2]))
        if own.content != prompt.content:  # written otherwise, such as 05?17:
            return None
        return ("validation" if is_validation(own.key, self.validation_share) else "train"), own

    def expert(self, prompt: Prompt, rng: np.random.Generator, style: str = "steps", error_rate: float | None = None) -> str:
        """A shortest way, worked out; with ``error_rate`` each operation is a random one so often, and the chain goes on from there.

        Raises:
            RheostatError: a prompt that is not of this task.
        """
        found = self.locate(prompt)
        if found is None:
            raise RheostatError(f"{prompt.content!r} is no problem such as '5?9:' that has a way.")
        value, target = found[1].columns["start"], found[1].columns["target"]
        steps: list[str] = []
        while value != target and len(steps) < self.most_steps:
            operation = str(rng.choice(self.operations)) if error_rate and rng.random() < error_rate else self.toward(value, target, rng)
            value = self.after(operation, value)
            steps.append(f"{operation}={value}")
        return SEPARATOR.join(steps) + END

    def toward(self, value: int, target: int, rng: np.random.Generator) -> str:
        """An operation that begins a shortest way; any where there is none."""

        def left(operation: str) -> float:
            after = self.after(operation, value)
            return 0 if after == target else self._distances.get((after, target), np.inf)

        rest = [left(each) for each in self.operations]
        return str(rng.choice([each for each, steps in zip(self.operations, rest, strict=True) if steps == min(rest)]))

    def read(self, completion: str, start: int) -> tuple[list[str], int] | None:
        """The operations of a chain and where it ends; None where a step is malformed or wrong."""
        if not completion.endswith(END):
            return None
        operations, value = [], start
        for text in completion.removesuffix(END).split(SEPARATOR):
            found = _STEP.fullmatch(text)
            if not found or found[1] not in self.operations or int(found[2]) != self.after(found[1], value):
                return None
            value = int(found[2])
            operations.append(found[1])
        return (operations, value) if len(operations) <= self.most_steps else None

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """``valid_chain`` [N] float32: 1 where every step is right, wherever it leads."""
        import torch

        read = [self.read(text, prompt.columns["start"]) is not None for prompt, text in zip(prompts, completions, strict=True)]
        return {"valid_chain": torch.tensor(read).float()}


class ChainVerifier:
    """1 where every step is right and the last one arrives.

    Args:
        task: whose operations they are.
    """

    name = "operation-chains"

    def __init__(self, task: OperationChains) -> None:
        self.task = task

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade; a rollout without start and target is invalid."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    def _grade(self, rollout: Rollout) -> Grade:
        columns: Any = rollout.columns
        if columns.get("start") is None or columns.get("target") is None:
            return Grade.failure("the prompt has no start and no target")
        found = self.task.read(rollout.completion, columns["start"])
        return Grade(float(found is not None and found[1] == columns["target"]), {}, {"answer": "" if found is None else str(found[1])})
