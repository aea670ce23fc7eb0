"""A candidate beside a reference answer, as one row that a policy discriminator reads (POLAR, arXiv 2507.05197).

    prompt, reference, separator, prompt again, candidate, end

Everything is put together from token ids, so no tokenizer can split the separator or merge what meets at a seam. The score is read after
the end, the row's last token. How rows are written is kept with the model's head (:class:`Form`): whoever scores writes as training did.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Any, Self

from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language.encoding import encode_prompt
from rheostat.tasks.language.task_interface import Prompt

COLUMN = "reference"
"""The column that holds a prompt's reference answer."""
RESERVED = 4
"""Tokens that are kept free for separator, end and joins where a prompt is cut."""
THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class Form:
    """How rows are written."""

    separator: str
    """The token between the two halves."""
    end: str
    """The token at the end, after which the score is read."""
    join: str
    """What stands between a prompt and an answer."""
    longest_answer: int
    """Tokens that are read of a reference and of a candidate."""

    def to_text(self) -> str:
        """As it is kept with a model's head."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, policy: LanguagePolicy) -> Self | None:
        """The form of the rows that a model's head reads; None where it reads a prompt and an answer alone.

        Raises:
            RheostatError: what is kept is no form.
        """
        if policy.value_head is None or not policy.value_head.form:
            return None
        try:
            read = json.loads(policy.value_head.form)
            kinds = {"longest_answer": int}
            if all(isinstance(read[item.name], kinds.get(item.name, str)) for item in fields(cls)):
                return cls(**{item.name: read[item.name] for item in fields(cls)})
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise RheostatError("The head of the reward model does not say how rows with a reference are written: train or export it again.")


def pieces(
    prompt: Sequence[int],
    reference: Sequence[int],
    candidate: Sequence[int],
    *,
    join: Sequence[int],
    separator: int,
    end: int,
    longest: int,
    longest_answer: int,
) -> tuple[list[list[int]], list[list[int]]]:
    """The parts of a row, in order: what stands before the candidate, and the candidate with the end.

    Answers keep their first ``longest_answer`` tokens. Of the prompt, which comes twice, the last
    ``(longest - 4 - len(reference) - len(candidate)) // 2`` tokens are kept (none where that is less than one).

    Args:
        prompt, reference, candidate: token ids.
        join: token ids between a prompt and an answer.
        separator, end: token ids.
        longest: tokens that a row may have.
        longest_answer: tokens that an answer may have.
    """
    said, tried = list(reference[:longest_answer]), list(candidate[:longest_answer])
    room = max(0, (longest - max(RESERVED, 2 + 2 * len(join)) - len(said) - len(tried)) // 2)
    asked = list(prompt[max(0, len(prompt) - room) :])
    return [asked, list(join), said, [separator], asked, list(join)], [tried, [end]]


def without_thinking(text: str) -> str:
    """An answer without its first block of thinking, ``<think>...</think>``, and the blanks around what is left."""
    return THINKING.sub("", text, count=1).strip() if THINKING.search(text) else text


class ReferenceReader:
    """Writes rows for a model.

    Args:
        form: how.
        policy: the model, with its tokenizer.
        template_options: of the chat template.

    Raises:
        RheostatError: a separator or an end that is no single token, or both are the same.
    """

    def __init__(self, form: Form, policy: LanguagePolicy, template_options: dict[str, Any] | None = None) -> None:
        self.form, self.tokenizer, self.template_options = form, policy.tokenizer, template_options
        self.longest = policy.longest
        self.separator, self.end = (token_id(policy.tokenizer, token) for token in (form.separator, form.end))
        if self.separator == self.end:
            raise RheostatError(f"The separator and the end are both {form.separator!r}: name another separator.")
        self.join = self.ids(form.join)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            RheostatError: the tokenizer cannot encode it.
        """
        try:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
        except Exception as error:  # a tokenizer without an unknown token raises a bare Exception
            raise RheostatError(f"The tokenizer of the reward model cannot encode {text[:60]!r}: {error}.") from error

    def row(self, prompt: Prompt, reference: str, candidate: str) -> tuple[list[int], list[int]]:
        """Token ids before the candidate, and of the candidate with the end.

        Raises:
            RheostatError: a text that the tokenizer cannot encode, or answers that leave no room in the model's positions.
        """
        asked = encode_prompt(prompt, self.tokenizer, self.template_options)
        said, tried = self.ids(without_thinking(reference)), self.ids(without_thinking(candidate))
        longest = self.longest if self.longest is not None else RESERVED + 2 * (len(asked) + len(said) + len(tried) + len(self.join))
        facts: dict[str, Any] = {"longest": longest, "longest_answer": self.form.longest_answer}
        before, after = pieces(asked, said, tried, join=self.join, separator=self.separator, end=self.end, **facts)
        found = list(chain.from_iterable(before)), list(chain.from_iterable(after))
        if len(found[0]) + len(found[1]) > longest:
            raise RheostatError(
                f"the reference and the answer have {len(said)} and {len(tried)} tokens, for which the reward model with its {longest} "
                "positions has no room"
            )
        return found


def token_id(tokenizer: Any, token: str) -> int:
    """The id of a token.

    Raises:
        RheostatError: the tokenizer has no such token.
    """
    found = tokenizer.get_vocab().get(token)
    if found is None:
        raise RheostatError(f"{token!r} is no single token of the model's tokenizer: name one that is, for example its beginning token.")
    return int(found)


def reference_of(columns: Mapping[str, Any], where: str) -> str:
    """The reference answer in the columns of a prompt's row: text, or chat messages that end with the assistant's.

    Raises:
        RheostatError: there is none.
    """
    value = columns.get(COLUMN)
    if isinstance(value, list) and value and isinstance(value[-1], Mapping) and value[-1].get("role") == "assistant":
        value = value[-1].get("content")
    if not isinstance(value, str) or not value.strip():
        raise RheostatError(
            f"{where} has no reference answer: a policy discriminator compares with one, in the column {COLUMN!r}, as text or as chat "
            "messages that end with the assistant's."
        )
    return value
