"""The gold utility of the study of OSP, and its preferences as a judge of pairs; a file by itself, because judges run behind walls."""

from __future__ import annotations

import math
from typing import Any

LETTERS = "abcdefghijklmnopqrst"
LENGTH = 8
"""Letters of an answer."""
REPEATED = 0.4
"""What every letter costs that an answer has said before."""


def utility(wanted: str, answer: str) -> float:
    """What the wanted letters that an answer holds are worth, later ones of the alphabet more, less what it repeats.

    Letters beyond the eighth do not count.
    """
    said = answer[:LENGTH]
    found = sum(1.0 + LETTERS.index(letter) / len(LETTERS) for letter in wanted if letter in said)
    return found - REPEATED * (len(said) - len(set(said)))


def preference(wanted: str, first: str, second: str) -> float:
    """The probability that the first answer is preferred: Bradley-Terry at temperature 1."""
    return 1 / (1 + math.exp(utility(wanted, second) - utility(wanted, first)))


def judge(prompts: list[str], completions: list[str], other: list[str], **columns: Any) -> list[float]:
    """The true probabilities, for prompts such as ``cfa=``."""
    return [preference(prompt.rstrip("="), *pair) for prompt, *pair in zip(prompts, completions, other, strict=True)]
