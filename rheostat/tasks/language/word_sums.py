"""``word-sums``: short word problems in plain English, as chat prompts, for real language models.

    Tom has 14 apples and buys 9 more. How many apples does Tom have now?

The answer is a whole number: the one after the last ``Answer:``, else the last one written. Five skills (one step each of adding, taking
away, multiplying and sharing, and two steps) and three difficulties (how large the numbers are). SmolLM2-135M-Instruct rarely writes
the requested form. At difficulty 1 it was right in .09 of its samples at temperature 1 and at least once in eight for .62 of the
prompts (16 training prompts x 8 samples of 48 tokens), at difficulty 2 in .03 and for .12. Problems are made from a seed; even at
difficulty 1 there are over ten thousand of each skill.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split, is_validation

BLOCK = 256
SKILLS = ("add", "subtract", "multiply", "share", "two-steps")
NAMES = ("Tom", "Ana", "Ben", "Mia", "Sam", "Eva", "Leo", "Ida", "Max", "Zoe", "Noah", "Lily", "Omar", "Nina", "Hugo", "Rosa")
THINGS = ("apples", "marbles", "books", "stickers", "coins", "pencils", "shells", "cards", "cookies", "stamps", "buttons", "beads")
PLACES = ("boxes", "bags", "baskets", "shelves", "jars", "drawers")
LARGEST = {1: 10, 2: 50, 3: 500}
"""Difficulty -> the largest number that is added; factors and shares go up to 5, 12 and 30."""
FACTORS = {1: 5, 2: 12, 3: 30}
INSTRUCTION = "Think briefly, then write 'Answer: N'."

_NUMBER = r"(?:(?<!\d)-)?\d[\d,]*(?:\.\d+)?"
_STATED = re.compile(rf"answer:\s*\**\s*({_NUMBER})", re.IGNORECASE)
_ANY = re.compile(_NUMBER)


def states_answer(completion: str) -> bool:
    """Whether a number follows ``Answer:``."""
    return _STATED.search(completion) is not None


def final_number(completion: str) -> str | None:
    """The number after the last ``Answer:``, else the last one, without thousands separators and needless zeros; None without any."""
    found = _STATED.findall(completion) or _ANY.findall(completion)
    if not found:
        return None
    whole, _, fraction = found[-1].replace(",", "").partition(".")
    return str(int(whole)) + (f".{fraction}" if fraction.strip("0") else "")


@dataclass(frozen=True)
class WordSums(LanguageTask):
    """The task and its knobs.

    Raises:
        RheostatError: knobs that make no problems.
    """

    difficulty: int = 1
    """1 (numbers to 10), 2 (to 50) or 3 (to 500)."""
    skills: tuple[str, ...] = SKILLS
    """Which kinds of problems occur, equally often."""
    validation_share: float = 0.1
    """Share of all prompts set aside for validation."""
    name: str = "word-sums"

    def __post_init__(self) -> None:
        if self.difficulty not in LARGEST:
            raise RheostatError(f"word-sums has the difficulties 1, 2 and 3; got {self.difficulty}.")
        if not self.skills or len(set(self.skills)) < len(self.skills) or not set(self.skills) <= set(SKILLS):
            raise RheostatError(
                f"The skills of word-sums are different ones of {', '.join(SKILLS)}; got {', '.join(self.skills) or 'none'}."
            )
        if not 0 <= self.validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {self.validation_share}.")

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """The longest problem with a chat template of ordinary length, and three short sentences of working."""
        return Limits(160, 64)

    @property
    def base(self) -> str:
        """SmolLM2-135M-Instruct."""
        return "smollm2-135m"

    def verifier(self) -> WordSumsVerifier:
        """The final number is the right one."""
        return WordSumsVerifier()

    def family(self, prompt: Prompt) -> str | None:
        """The skill, where there are several."""
        return str(prompt.columns["skill"]) if len(self.skills) > 1 else None

    def problem(self, rng: np.random.Generator) -> Prompt:
        """A problem drawn from a random generator."""
        skill = self.skills[int(rng.integers(len(self.skills)))]
        name, friend = (NAMES[int(each)] for each in rng.choice(len(NAMES), 2, replace=False))
        thing, place = THINGS[int(rng.integers(len(THINGS)))], PLACES[int(rng.integers(len(PLACES)))]
        first, second, third = (int(each) for each in rng.integers(2, LARGEST[self.difficulty] + 1, 3))
        one, other = (int(each) for each in rng.integers(2, FACTORS[self.difficulty] + 1, 2))
        if skill == "add":
            told = f"{name} has {first} {thing} and buys {second} more. How many {thing} does {name} have now?"
            working, answer = f"{first} + {second} = {first + second}.", first + second
        elif skill == "subtract":
            told = f"{name} has {first + second} {thing} and gives {second} to {friend}. How many {thing} does {name} have left?"
            working, answer = f"{first + second} - {second} = {first}.", first
        elif skill == "multiply":
            told = f"{name} has {one} {place} with {other} {thing} in each. How many {thing} does {name} have in all?"
            working, answer = f"{one} x {other} = {one * other}.", one * other
        elif skill == "share":
            told = f"{name} puts {one * other} {thing} equally into {one} {place}. How many {thing} are in each?"
            working, answer = f"{one * other} / {one} = {other}.", other
        else:
            total = first + second
            lost = min(third, total - 1)
            told = f"{name} has {first} {thing}, buys {second} more and gives {lost} to {friend}. How many {thing} does {name} have now?"
            working, answer = f"{first} + {second} = {total}. {total} - {lost} = {total - lost}.", total - lost
        columns = {"skill": skill, "solution": f"{working} Answer: {answer}"}
        return Prompt([{"role": "user", "content": f"{told} {INSTRUCTION}"}], str(answer), columns)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The problems of one draw of 256 that belong to the split."""
        rng = np.random.default_rng([derive_seed(seed, "word-sums", split), number])
        prompts = [self.problem(rng) for _ in range(BLOCK)]
        wanted = split == "validation"
        return [prompt for prompt in prompts if is_validation(prompt.key, self.validation_share) == wanted]

    def expert(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """The working in one line, and the answer.

        Raises:
            RheostatError: a prompt that is not of this task.
        """
        solution = prompt.columns.get("solution")
        if solution is None:
            raise RheostatError("The expert of word-sums knows only the task's own problems.")
        return str(solution)

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Any]:
        """``stated`` [N] float32: 1 where an answer is stated in the requested form, right or wrong."""
        import torch

        return {"stated": torch.tensor([float(states_answer(text)) for text in completions])}


class WordSumsVerifier:
    """1 where the final number is the answer (see :func:`final_number`); parts: whether it is stated in the requested form."""

    name = "word-sums"

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade; a rollout without a reference answer is invalid."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    @staticmethod
    def _grade(rollout: Rollout) -> Grade:
        if rollout.answer is None:
            return Grade.failure("the prompt has no answer to compare with")
        found = final_number(rollout.completion)
        return Grade(float(found == str(rollout.answer)), {"stated": float(states_answer(rollout.completion))}, {"answer": found or ""})
