"""How often a policy answers prompts rightly: what filters of difficulty go by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from rheostat.collect.language.prompt_groups import Graded, PromptCollector
from rheostat.tasks.language.task_interface import Prompt

PROMPTS_AT_ONCE = 64
RIGHT = 1.0
"""The least reward of a right answer."""


def pass_rates(
    collector: PromptCollector, drawn: list[tuple[Prompt, list[int]]], samples: int, sampling: Any, *, version: int
) -> Iterator[tuple[Graded, dict[str, float]]]:
    """Share of right completions of every prompt, some prompts at a time, with the completions themselves; changes no state.

    A completion that could not be graded is left out, and a prompt that none of could be, too.

    Args:
        collector: whose engine samples.
        drawn: different prompts with their token ids.
        samples: completions of each.
        sampling: how they are drawn.
        version: number of the policy's update.
    """
    for first in range(0, len(drawn), PROMPTS_AT_ONCE):
        some = drawn[first : first + PROMPTS_AT_ONCE]
        numbers = list(range(first, first + len(some)))
        graded = collector.sample(some, samples, sampling, numbers=numbers, purpose="pass rates", version=version)
        right, valid = (each.view(len(some), samples) for each in (graded.scores.reward >= RIGHT, graded.scores.valid))
        share = (right & valid).sum(1) / valid.sum(1)
        yield graded, {prompt.key: float(rate) for (prompt, _), rate in zip(some, share, strict=True) if not torch.isnan(rate)}
