"""Groups of representations: several texts that mean the same as a prompt's source, and several that do not.

A row has a prompt and two lists of texts, ``equivalent`` and ``inequivalent``::

    {"prompt": "Translate to three-address code: a*(b+1)", "equivalent": ["t=b+1; r=a*t", "t=1+b; r=t*a"], "inequivalent": ["t=b+1; r=a+t"]}

They come from a file, or from a task that makes them (``representations``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.prompt_files import read_row
from rheostat.tasks.language.reading import named_rows, read_rows
from rheostat.tasks.language.task_interface import Prompt, PromptStream, Split, is_validation

KINDS = ("equivalent", "inequivalent")


@runtime_checkable
class MakesRepresentations(Protocol):
    """A task, or a file, with groups of its own."""

    def representations(self, split: Split = "train", seed: int = 0) -> PromptStream:
        """An endless stream of prompts with the columns ``equivalent`` and ``inequivalent``, lists of texts."""
        ...


def members_of(prompt: Prompt, where: str = "") -> tuple[list[str], list[str]]:
    """The equivalent and the inequivalent texts of a prompt's row.

    Args:
        prompt: with both columns.
        where: it stands, for messages.

    Raises:
        RheostatError: a column is missing or no list of texts, a group has no member of a kind, or a text is of both kinds.
    """
    where = where or f"The group of the prompt with key {prompt.key}"
    found = []
    for kind in KINDS:
        texts: Any = prompt.columns.get(kind)
        texts = texts.tolist() if hasattr(texts, "tolist") else texts
        if not isinstance(texts, Sequence) or isinstance(texts, str) or not all(isinstance(text, str) and text for text in texts):
            raise RheostatError(
                f"{where} has no list of texts in its column {kind!r}: a group has the columns prompt, {' and '.join(KINDS)}."
            )
        if not texts:
            raise RheostatError(f"{where} has no {kind} member, so there is nothing to compare: give one, or remove the row.")
        found.append(list(texts))
    both = set(found[0]) & set(found[1])
    if both:
        raise RheostatError(f"{where} has the text {min(both)!r:.60} as equivalent and as inequivalent: leave it in one of the lists.")
    return found[0], found[1]


@dataclass(frozen=True)
class RepresentationFile:
    """Groups of a file, read and checked."""

    rows: list[Prompt]
    name: str
    validation_share: float = 0.1
    """Share of the prompts that is set aside for measurements."""

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits over all texts in order, so that a run is not resumed with another file."""
        total = hashlib.blake2b(digest_size=8)
        for row in self.rows:
            for text in (row.key, *(each for kind in KINDS for each in (kind, *row.columns[kind]))):
                total.update(f"{text}\0".encode("utf-8", "surrogatepass"))
        return total.hexdigest()

    def representations(self, split: Split = "train", seed: int = 0) -> PromptStream:
        """The rows of a split, shuffled anew every epoch.

        Raises:
            RheostatError: none belongs to the training side.
        """
        rows = [row for row in self.rows if is_validation(row.key, self.validation_share) == (split == "validation")]
        if not rows and split == "train":
            raise RheostatError(f"All groups of {self.name} are set aside for measurements: give more, or lower validation_share.")

        def block(number: int) -> list[Prompt]:
            order = np.random.default_rng([derive_seed(seed, "groups"), number]).permutation(len(rows))
            return [rows[index] for index in order.tolist()]

        return PromptStream(block, self.digest, self.name, len(rows))


def read_representations(path: str | Path, validation_share: float = 0.1) -> RepresentationFile:
    """Groups from JSON lines or parquet.

    Raises:
        RheostatError: no such file, an empty one, or a row that is no group (which line, and what is wrong with it).
    """
    rows = []
    for where, row in named_rows(read_rows(path, "groups of representations"), str(path)):
        prompt = read_row(row, where)
        equivalent, inequivalent = members_of(prompt, where)
        columns: dict[str, Any] = {**prompt.columns, "equivalent": equivalent, "inequivalent": inequivalent}
        rows.append(Prompt(prompt.content, prompt.answer, columns, prompt.key))
    if not rows:
        raise RheostatError(f"There are no groups of representations in {path}: give at least one row of {', '.join(('prompt', *KINDS))}.")
    return RepresentationFile(rows, str(path), validation_share)
