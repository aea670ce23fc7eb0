"""TRL's form: lists in, one number for each completion out. Columns of the prompt file arrive by their names."""

from typing import Any


def score(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    pairs = zip(completions, answer, strict=True)
    return [1.0 if text.rpartition("#")[2] == right else 0.0 for text, right in pairs]
