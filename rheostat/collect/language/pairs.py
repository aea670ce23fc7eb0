"""Preference pairs as rows: two answers to one prompt, one of them preferred by an annotator.

A prompt's row holds them in the columns ``chosen`` and ``rejected``, as text or as chat messages whose last one is the assistant's
(TRL's conventions). The two rows of a pair share a number in ``units``, so that no buffer separates them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rheostat.collect.language.experts import expert_rows
from rheostat.collect.language.language_collectors import batch_of
from rheostat.collect.language.prompt_groups import Graded
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.tasks.language.task_interface import Prompt
from rheostat.trajectories import Source

COLUMNS = ("chosen", "rejected")


def answers_of(prompt: Prompt) -> tuple[str, str]:
    """The chosen and the rejected answer of a prompt's row.

    Raises:
        RheostatError: a column is missing, is no text, or both answers are the same.
    """
    found = [_text(prompt, column) for column in COLUMNS]
    if found[0] == found[1]:
        raise RheostatError(f"The chosen and the rejected answer of the prompt with key {prompt.key} are the same: remove the row.")
    return found[0], found[1]


def _text(prompt: Prompt, column: str) -> str:
    value = prompt.columns.get(column)
    if isinstance(value, list) and value and isinstance(value[-1], Mapping) and value[-1].get("role") == "assistant":
        value = value[-1].get("content")
    if not isinstance(value, str):
        raise RheostatError(
            f"The prompt with key {prompt.key} has no answer in its column {column!r}: preference pairs have the columns prompt, chosen "
            "and rejected, as text or as chat messages that end with the assistant's."
        )
    return value


@dataclass(frozen=True)
class Pairs:
    """The next prompts with their chosen and rejected answers; nothing is sampled or graded (a collector)."""

    pairs: int = option(64, short="pairs_per_batch", at_least=1)
    """Preference pairs per batch."""
    kind: ClassVar[str] = "file"
    lesson: ClassVar[str] = "pairs"
    group_size: ClassVar[int] = 2
    ungraded: ClassVar[bool] = True
    annotated: ClassVar[bool] = True
    makes_units: ClassVar[bool] = True
    writes: ClassVar[tuple[str, ...]] = ("chosen", "margin")
    single_turn: ClassVar[str] = "both answers of a preference pair are one completion"
    refuses: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("lag", "replay_share", "expert_share"), "nothing is sampled, every row is an annotation"
    )

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        return 2 * self.pairs

    def collect(self, context: Any) -> Batch:
        """``[2 * pairs, T]``: chosen and rejected in turn, column ``chosen`` bool ``[B]``."""
        collector = context.collector
        drawn, numbers = collector.draw(self.pairs)
        batch = pairs_of(context, drawn, numbers)
        collector.generated_tokens += batch.rows.count()  # the budget counts the tokens that are learned from
        return batch


def pairs_of(context: Any, drawn: list[tuple[Prompt, list[int]]], numbers: list[int]) -> Batch:
    """Encoded prompts with both of their answers, as rows of source ANNOTATION.

    Raises:
        RheostatError: what :func:`answers_of` refuses, or an answer that is empty or too long.
    """
    texts = [text for prompt, _ in drawn for text in answers_of(prompt)]
    prompts = [each for each in drawn for _ in COLUMNS]
    units = torch.tensor(numbers).repeat_interleave(2)
    rows = expert_rows(context.setup, prompts, texts, units.tolist())
    rows.source = torch.full(rows.shape, int(Source.ANNOTATION))
    ones = torch.ones(len(prompts))
    graded = Graded(rows, [prompt for prompt, _ in prompts], texts, Scores(ones, ones.bool(), torch.zeros(len(prompts), dtype=torch.bool)))
    batch = batch_of(graded)
    batch.units = units
    batch.columns["chosen"] = torch.arange(len(prompts)) % 2 == 0
    batch.columns["margin"] = torch.tensor([float(prompt.columns.get("margin") or 0.0) for prompt, _ in prompts])
    batch.metrics = {"completion_length": rows.mask.sum(1).float().mean().item()}
    return batch
