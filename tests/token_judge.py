"""The judge of token worlds: a right answer is the better one of two, and of two right or two wrong ones neither is."""

from __future__ import annotations

from typing import Any


def judge(prompts: Any, completions: list[str], other: list[str], right: list[list[str]], **columns: Any) -> list[float]:
    """Probabilities that the completion is better than the other one."""
    pairs = zip(completions, other, right, strict=True)
    return [0.5 + 0.45 * ((mine in known) - (theirs in known)) for mine, theirs, known in pairs]
