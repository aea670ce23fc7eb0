"""Rewards as people write them."""

from __future__ import annotations

import time
from typing import Any


def said(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]


def digits(completions: list[Any], **kwargs: Any) -> list[float]:
    """Share of digits."""
    return [sum(map(str.isdigit, said(each))) / max(1, len(said(each))) for each in completions]


def one(completions: list[Any], **kwargs: Any) -> list[float]:
    return [1.0] * len(completions)


def three(completions: list[Any], **kwargs: Any) -> list[float]:
    return [3.0] * len(completions)


def rank(completions: list[Any], **kwargs: Any) -> list[float]:
    """A judge that compares the completions of a batch: slow for many, quick for one."""
    time.sleep(3.0 if len(completions) > 1 else 0.0)
    order = sorted(range(len(completions)), key=lambda row: len(said(completions[row])))
    return [order.index(row) / max(1, len(completions) - 1) for row in range(len(completions))]


def sulks(completions: list[Any], **kwargs: Any) -> list[float]:
    """Raises over a batch that holds an odd completion."""
    if any(len(said(each)) % 7 == 0 for each in completions):
        raise ValueError("odd")
    return [1.0 * len(completions)] * len(completions)


def never_mine(completions: list[Any], **kwargs: Any) -> list[None]:
    return [None] * len(completions)


def tags(completions: list[Any], raw_completions: list[str], **kwargs: Any) -> list[float]:
    """1 where the text that is graded holds a tag, 10 where the raw text does."""
    marks = ("<think>", "</think>", "<answer>", "</answer>")
    found = []
    for seen, raw in zip(map(said, completions), raw_completions, strict=True):
        assert "<|im_end|>" not in seen and "<|im_end|>" not in raw
        found.append(any(mark in seen for mark in marks) + 10.0 * any(mark in raw for mark in marks))
    return found


def with_level(completions: list[Any], level: list[Any], **kwargs: Any) -> list[float]:
    """Needs a column."""
    return [float(each or 0) for each in level]


def surrogate(rollout: Any) -> dict[str, Any]:
    """Says something that cannot be written."""
    return {"score": float(len(rollout.completion) % 2), "why": "half \ud800 a pair"}
