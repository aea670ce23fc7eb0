"""Rewards as people write them."""

from __future__ import annotations

from typing import Any


def said(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]


def digits(completions: list[Any], **kwargs: Any) -> list[float]:
    """Share of digits."""
    return [sum(map(str.isdigit, said(each))) / max(1, len(said(each))) for each in completions]
