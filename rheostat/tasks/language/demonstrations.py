"""Expert data: prompts and completions of an expert, from a file.

A row has a prompt and a completion (``completion``, ``demonstration``, ``response`` or ``target``), each as text or as chat messages, or a
whole chat in ``messages`` whose last message is the completion. ``answer``, a reward and every other column are kept. A prompt may have
several completions. Nothing is ever cut: a row that is too long or wrong is an error, or is left out and counted. A completion that was cut
before (``truncated``, or a ``finish_reason`` of ``length``) gets no end token where it was cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rheostat.credit.verifiers.verifier_interface import Verifier
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.prompt_files import read_row
from rheostat.tasks.language.reading import named_rows, read_rows
from rheostat.tasks.language.task_interface import LanguageTask, Prompt, PromptStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("completion", "demonstration", "response", "target")
"""Columns of a row that hold a completion, in order of preference."""
Missing = Literal["error", "skip", "task"]
OnLong = Literal["error", "drop"]


class Completion(str):
    """The text of an expert's completion."""

    cut = False
    """Whether its writer was stopped by a limit: it ends in the middle."""

    @classmethod
    def of(cls, text: str, columns: Mapping[str, Any]) -> Completion:
        """The completion with the columns of its row about its end."""
        found = cls(text)
        reasons = (columns.get("finish_reason"), columns.get("stop_reason"))
        found.cut = bool(columns.get("truncated")) or any(reason in ("length", "max_tokens") for reason in reasons)
        return found


@dataclass(frozen=True)
class Demonstrations:
    """Expert rows in memory; each is a prompt whose column ``completion`` is text."""

    rows: list[Prompt]
    name: str = "the expert rows"
    """Name for messages."""
    missing: Missing = "error"
    """The rule for a drawn prompt without a row: an error; only prompts that have one are drawn (``skip``); or the task's own
    expert answers (``task``)."""
    places: list[str] = field(default_factory=list)
    """Where each row stands, for messages."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows that were left out, by reason."""

    def __post_init__(self) -> None:
        if not self.rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
            told = f"all were left out ({reasons})" if reasons else "the file is empty"
            raise RheostatError(f"There are no expert rows in {self.name}: {told}; give at least one row of prompt and completion.")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over prompts and completions in order, so that a run is not resumed with another file."""
        total = hashlib.blake2b(digest_size=8)
        for row in self.rows:
            total.update(f"{row.key}\0{row.columns['completion']}\0".encode("utf-8", "surrogatepass"))
        return total.hexdigest()

    @cached_property
    def by_key(self) -> dict[str, list[str]]:
        """All completions of every prompt, by its key."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            found.setdefault(row.key, []).append(row.columns["completion"])
        return found

    def chosen(self, prompt: Prompt, seed: int, number: int, count: int = 1) -> list[str]:
        """``count`` completions of a prompt, different ones while there are enough, chosen by the run's seed and the prompt's number."""
        texts = self.by_key.get(prompt.key)
        if not texts:
            return []
        order = np.random.default_rng(derive_seed(seed, "expert", number)).permutation(len(texts)).tolist()
        return [texts[order[copy % len(order)]] for copy in range(count)]

    def stream(self, seed: int) -> PromptStream:
        """An endless stream of the rows, shuffled anew every epoch; its cursor can be saved."""
        return self._epochs(self.rows, derive_seed(seed, "epoch", "experts"))

    def prompts(self, seed: int) -> PromptStream:
        """An endless stream of the different prompts that have rows, shuffled anew every epoch."""
        return self._epochs(list({row.key: row for row in self.rows}.values()), derive_seed(seed, "epoch", "train"))

    def _epochs(self, rows: list[Prompt], seed: int) -> PromptStream:
        def block(number: int) -> list[Prompt]:
            return [rows[index] for index in np.random.default_rng([seed, number]).permutation(len(rows)).tolist()]

        return PromptStream(block, self.digest, self.name, len(rows))

    def without(self, unwanted: Mapping[int, str]) -> Demonstrations:
        """Without some rows (number -> reason), which are counted."""
        dropped = dict(self.dropped)
        for reason in unwanted.values():
            dropped[reason] = dropped.get(reason, 0) + 1
        kept = [number for number in range(len(self.rows)) if number not in unwanted]
        return Demonstrations(
            [self.rows[number] for number in kept], self.name, self.missing, [self.places[number] for number in kept], dropped
        )

    def within(self, task: LanguageTask) -> Demonstrations:
        """The rows that belong to the task's training side, with the task's own answers and columns.

        Rows for prompts that the task validates on are left out and counted: learning from them would spoil every evaluation.

        Raises:
            RheostatError: a row for a prompt that the task never draws.
        """
        rows, unwanted = list(self.rows), {}
        for number, row in enumerate(self.rows):
            found = task.locate(row)
            if found is None:
                raise RheostatError(
                    f"{self.places[number]} is for the prompt {short(row)}, which {task.name} never draws: remove the row, or "
                    "mend the prompt (it must be the same text or the same chat messages)."
                )
            side, own = found
            if side == "validation":
                unwanted[number] = "validation prompts"
            answer = own.answer if own.answer is not None else row.answer
            rows[number] = replace(own, answer=answer, columns={**own.columns, **row.columns})
        return Demonstrations(rows, self.name, self.missing, self.places, self.dropped).without(unwanted)

    def at_most(self, tokens: int, tokenizer: PreTrainedTokenizerBase, on_long: OnLong = "error") -> Demonstrations:
        """The rows whose completion has at most ``tokens`` tokens, its end token included.

        Raises:
            RheostatError: a longer row with ``on_long="error"``, or text the tokenizer does not know.
        """
        unwanted = {}
        for number, length in enumerate(self._lengths(tokenizer)):
            if length <= tokens:
                continue
            if on_long == "error":
                raise RheostatError(
                    f"{self.places[number]} has a completion of {length} tokens with its end, more than the {tokens} that a completion may "
                    "have: raise max_new_tokens, or leave such rows out with expert_long drop."
                )
            unwanted[number] = "too long"
        return self.without(unwanted)

    def _lengths(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        texts = [row.columns["completion"] for row in self.rows]
        try:
            encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
            return [len(ids) + (not text.cut) for ids, text in zip(encoded, texts, strict=True)]
        except Exception:  # a tokenizer without an unknown token raises a bare Exception: find the row
            for number, text in enumerate(texts):
                try:
                    tokenizer(text, add_special_tokens=False)
                except Exception as error:
                    raise RheostatError(f"{self.places[number]} has a completion that the tokenizer cannot encode: {error}.") from error
            raise

    def worth(self, least_reward: float, verifier: Verifier) -> Demonstrations:
        """The rows to which the verifier gives at least this reward; the others, and those it cannot grade, are left out and counted."""
        scores = verifier.score([row.rollout(row.columns["completion"]) for row in self.rows])
        unwanted = {}
        for number, (valid, reward) in enumerate(zip(scores.valid.tolist(), scores.reward.tolist(), strict=True)):
            if not valid:
                unwanted[number] = "without a grade"
            elif reward < least_reward:
                unwanted[number] = f"with a reward below {least_reward:g}"
        return self.without(unwanted)


def read_demonstrations(source: str | Path | Any, *, missing: Missing = "error") -> Demonstrations:
    """Expert rows from JSON lines, parquet, a folder written by ``Dataset.save_to_disk``, or any iterable of rows.

    Raises:
        RheostatError: no such file, an empty one, or a malformed row (which line, and what is wrong with it).
    """
    name = str(source) if isinstance(source, str | Path) else "the expert rows"
    rows, places = [], []
    for where, row in named_rows(read_rows(source, "expert rows"), name):
        rows.append(read_demonstration(row, where))
        places.append(where)
    return Demonstrations(rows, name, missing, places)


def read_demonstration(row: Any, where: str) -> Prompt:
    """A row as a prompt whose column ``completion`` is a :class:`Completion`.

    Raises:
        RheostatError: naming ``where`` it is and what is wrong with it.
    """
    prompt = read_row(row, where)
    column = next((name for name in COLUMNS if prompt.columns.get(name) is not None), None)
    if column is None:
        raise RheostatError(
            f"{where} has no completion: give it a column {' or '.join(map(repr, COLUMNS))}, or a whole chat in 'messages' "
            f"(it has {', '.join(map(str, row))})."
        )
    text = Completion.of(_text(prompt.columns[column], where), prompt.columns)
    return Prompt(prompt.content, prompt.answer, {**prompt.columns, "completion": text}, prompt.key)


def own_completion(prompt: Prompt) -> Completion | None:
    """The completion in the columns of a prompt's own row; None where they have none.

    Raises:
        RheostatError: it is empty, or more than one message of the assistant.
    """
    for column in COLUMNS:
        value = prompt.columns.get(column)
        if isinstance(value, Completion):
            return value
        if isinstance(value, (str, list)) or hasattr(value, "tolist"):
            return Completion.of(_text(value, f"The prompt {short(prompt)}"), prompt.columns)
    return None


def _text(completion: Any, where: str) -> str:
    """A completion as text: itself, or the content of its one assistant message."""
    if hasattr(completion, "tolist"):
        completion = completion.tolist()
    if isinstance(completion, Sequence) and not isinstance(completion, str):
        said = [message for message in completion if isinstance(message, Mapping) and message.get("role") == "assistant"]
        if len(said) != 1 or len(completion) != 1 or not isinstance(said[0].get("content"), str):
            raise RheostatError(
                f"{where} has a completion of {len(completion)} chat messages: it must be text, or one message of the assistant with text "
                "(a whole chat in 'messages' ends with it)."
            )
        completion = said[0]["content"]
    if not isinstance(completion, str):
        raise RheostatError(f"{where} has a completion of type {type(completion).__name__}: it must be text or a chat message.")
    if not completion.strip():
        raise RheostatError(f"{where} has an empty completion: remove the row or give it a text.")
    return completion


def short(prompt: Prompt, width: int = 60) -> str:
    """The beginning of a prompt and its key, for messages."""
    text = str(prompt.content)
    return f"{text if len(text) <= width else text[: width - 3] + '...'!r} (key {prompt.key})"
