"""The user's own prompts, from any source that :mod:`rheostat.tasks.language.reading` reads.

A row has a prompt (text or chat messages) and, usually, a reference answer; every other column is kept for the reward function. Rows are
split into train and validation by the hash of the prompt, so duplicates stay on one side; the train stream is shuffled anew every epoch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from rheostat.credit.verifiers.built_in import load_rewards
from rheostat.credit.verifiers.verifier_interface import Verifier
from rheostat.errors import RheostatError, shown_error, unknown
from rheostat.streams import derive_seed
from rheostat.tasks.language.reading import named_rows, read_rows
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, PromptStream, Split, is_validation

DEEPEST = 64
"""Containers within containers that a column may have."""
ANSWER_COLUMNS = ("answer", "solution", "ground_truth")
"""Columns that are searched for the reference answer when none is named; then verl's ``reward_model``."""


KNOBS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "prompt_column": ("the name of a column", lambda value: isinstance(value, str)),
    "answer_column": ("the name of a column", lambda value: isinstance(value, str)),
    "validation": ("a file or rows", lambda value: not isinstance(value, (int, float))),
    "validation_share": ("a number in [0, 1)", lambda value: _number(value) and 0 <= value < 1),
    "max_prompt_tokens": ("a number of tokens, at least 1", lambda value: _count(value)),
    "max_new_tokens": ("a number of tokens, at least 1", lambda value: _count(value)),
    "stop": ("a list of texts", lambda value: _several(value, lambda each: isinstance(each, str) and bool(each))),
    "stop_ids": ("a list of token ids", lambda value: _several(value, lambda each: isinstance(each, int) and each >= 0)),
    "template_options": ("an object of options of the chat template", lambda value: isinstance(value, Mapping)),
    "reward": ("the name of a reward, or several", lambda value: True),
    "reward_weights": ("a list of numbers", lambda value: _several(value, _number)),
    "reward_options": ("an object of options", lambda value: isinstance(value, Mapping)),
    "comparison": ("a text with {prompt}, {first} and {second}", lambda value: isinstance(value, str) and _is_comparison(value)),
    "verdicts": (
        "two different texts",
        lambda value: _several(value, lambda each: isinstance(each, str)) and len({*value}) == len(value) == 2,
    ),
    "name": ("a text", lambda value: isinstance(value, str)),
}
"""The options of own prompts: the kind of each, and the check of its values."""


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _several(value: Any, kind: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(kind, value))


def _is_comparison(text: str) -> bool:
    try:
        fields = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError:
        return False
    return fields == {"prompt", "first", "second"}


def check_knobs(options: Mapping[str, Any]) -> None:
    """Refuse options that own prompts do not have, and values that are of another kind.

    Raises:
        RheostatError: naming the option, and the nearest known one or what it must be.
    """
    for name, value in options.items():
        if name in ("on_long", "long"):
            raise RheostatError("What happens to prompts that are too long is an option of the run: --long error or --long drop.")
        if name not in KNOBS:
            raise unknown("option of your own prompts", name, KNOBS)
        what, fits = KNOBS[name]
        if value is not None and not fits(value):
            raise RheostatError(f"The option {name} of your own prompts is {value!r:.60}: it must be {what}.")


class FilePrompts(LanguageTask):
    """Prompts from rows that are in memory.

    Args:
        rows: one mapping per prompt.
        reward: the graders (see :func:`load_reward`); several as a list.
        name: for messages.
        prompt_column: holds the prompt: a string, or a list of ``{"role": ..., "content": ...}``.
        answer_column: holds the reference answer; None looks through ``ANSWER_COLUMNS`` and verl's ``reward_model.ground_truth``.
        validation: rows to validate on; None sets a share of ``rows`` aside.
        validation_share: that share, in [0, 1).
        max_prompt_tokens, max_new_tokens: default limits.
        stop: texts that end a completion.
        stop_ids: token ids that end a completion, in addition to those of the model.
        template_options: passed to the chat template with every prompt (``{"enable_thinking": False}``).
        reward_weights: one for each reward.
        reward_options: passed on to :func:`load_reward`.
        comparison: the question which of two answers is better, with ``{prompt}``, ``{first}`` and ``{second}``; None takes a usual one.
        verdicts: what follows that question where the first answer is better, and where the second is; one token each.

    Raises:
        RheostatError: no rows, a row without a usable prompt, or validation rows that also occur in training.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        reward: Any = "exact",
        *,
        name: str = "prompts",
        prompt_column: str = "prompt",
        answer_column: str | None = None,
        validation: Iterable[Mapping[str, Any]] | None = None,
        validation_share: float = 0.05,
        max_prompt_tokens: int = 1024,
        max_new_tokens: int = 1024,
        stop: Sequence[str] = (),
        stop_ids: Sequence[int] = (),
        template_options: Mapping[str, Any] | None = None,
        reward_weights: Sequence[float] | None = None,
        reward_options: Mapping[str, Any] | None = None,
        comparison: str | None = None,
        verdicts: Sequence[str] | None = None,
    ) -> None:
        if not 0 <= validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {validation_share}.")
        self.name, self.validation_share = name, validation_share
        self.limits = Limits(max_prompt_tokens, max_new_tokens, tuple(stop), tuple(stop_ids), dict(template_options or {}))
        self.rewards: list[Any] = list(reward) if isinstance(reward, (list, tuple)) else [reward]
        """The graders, as given."""
        self._reward_weights, self._reward_options = reward_weights, dict(reward_options or {})
        self._comparison = comparison
        if verdicts is not None:
            self.verdicts = (verdicts[0], verdicts[1])
        self.dropped = 0
        """Prompts that were left out because they are too long."""
        named = [(where, read_row(row, where, prompt_column, answer_column)) for where, row in named_rows(rows, name)]
        prompts = [prompt for _, prompt in named]
        if not prompts:
            raise RheostatError(f"There are no prompts in {name}: give at least one row.")
        if validation is None:
            self._train = [prompt for prompt in prompts if not is_validation(prompt.key, validation_share)]
            self._validation = [prompt for prompt in prompts if is_validation(prompt.key, validation_share)]
        else:
            self._train = prompts
            beside = [(where, read_row(row, where, prompt_column, answer_column)) for where, row in named_rows(validation, "validation")]
            self._validation = [prompt for _, prompt in beside]
            named += beside
            shared = {prompt.key for prompt in prompts} & {prompt.key for prompt in self._validation}
            if shared:
                raise RheostatError(f"{len(shared)} prompts of {name} are also in the validation rows: remove them from one of the two.")
        if not self._train:
            raise RheostatError(f"All {len(prompts)} prompts of {name} fell into validation: give more rows or lower validation_share.")
        self.named = named
        """Every row as it was read, with its place."""
        self.digest = digest_of(prompt for _, prompt in named)
        """16 hexadecimal digits over all rows in their order, so that a run is not resumed with other ones."""

    def __len__(self) -> int:
        """Number of training prompts."""
        return len(self._train)

    def drop(self, unwanted: set[int]) -> None:
        """Leave out rows (numbers in ``named``) on both sides, and count them.

        Raises:
            RheostatError: no training prompt would be left.
        """
        gone = {id(self.named[number][1]) for number in unwanted}
        self._train, self._validation = ([prompt for prompt in side if id(prompt) not in gone] for side in (self._train, self._validation))
        self.dropped += len(gone)
        self.named = [pair for number, pair in enumerate(self.named) if number not in unwanted]
        if not self._train:
            raise RheostatError(f"No training prompt of {self.name} is left, because {self.dropped} were dropped: raise the prompt limit.")

    def prompts(self, split: Split = "train", seed: int = 0) -> PromptStream:
        """An endless stream of one split; its cursor is loaded only with the same rows."""
        size = len(self._train if split == "train" else self._validation)
        return PromptStream(lambda number: self.block(number, split, seed), self.digest, self.name, size)

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """The side and the row of the first prompt with the same content; None where no row has it."""
        if not hasattr(self, "_places"):
            sides: tuple[tuple[Split, list[Prompt]], ...] = (("validation", self._validation), ("train", self._train))
            self._places = {own.key: (side, own) for side, prompts in sides for own in reversed(prompts)}
        return self._places.get(prompt.key)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Epoch ``number`` of the split, shuffled."""
        prompts = self._train if split == "train" else self._validation
        order = np.random.default_rng([derive_seed(seed, "epoch", split), number]).permutation(len(prompts))
        return [prompts[index] for index in order.tolist()]

    def validation(self, count: int = 500) -> list[Prompt]:
        """The first ``count`` different validation prompts in the order of the file.

        Raises:
            RheostatError: there are none.
        """
        if not self._validation:
            raise RheostatError(f"{self.name} has no validation prompts: give a validation file, more rows or a larger validation_share.")
        return list({prompt.key: prompt for prompt in self._validation}.values())[:count]

    def comparison(self, prompt: Prompt, first: str, second: str) -> Prompt:
        """The prompt that asks which of two answers is better, in the user's own words where there are any."""
        if self._comparison is None:
            return super().comparison(prompt, first, second)
        question = prompt.content if isinstance(prompt.content, str) else prompt.content[-1]["content"]
        text = self._comparison.format(prompt=question, first=first, second=second)
        return Prompt(text if isinstance(prompt.content, str) else [{"role": "user", "content": text}], None, {"about": prompt.key})

    def verifier(self, weights: Sequence[float] | None = None, **options: Any) -> Verifier:
        """The reward given, made anew; weights and options of a run override those of the task."""
        walls = {"sandbox": self.sandbox, "needs": self.reward_needs}
        return load_rewards(self.rewards, weights or self._reward_weights, **(walls | self._reward_options | options))


def load_prompts(source: str | Path | Any, reward: Any = "exact", **options: Any) -> FilePrompts:
    """A task from a file, a folder or a ``datasets`` object.

    Args:
        source: a file, a folder or rows, see :func:`~rheostat.tasks.language.reading.read_rows`.
        reward: the graders.
        options: as for :class:`FilePrompts`; ``validation`` may be a source of the same kinds.

    Raises:
        RheostatError: no such file, unknown kind, malformed line, or what :class:`FilePrompts` refuses.
    """
    check_knobs(options)
    validation = options.pop("validation", None)
    if validation is not None:
        options["validation"] = read_rows(validation)
    name = str(source) if isinstance(source, (str, Path)) else "the prompts"
    return FilePrompts(read_rows(source), reward, **{"name": name, **options})


def digest_of(prompts: Iterable[Prompt]) -> str:
    """16 hexadecimal digits over prompts, answers and other columns, in order: the same whichever kind of file the rows come from."""
    total = hashlib.blake2b(digest_size=8)
    for prompt in prompts:
        told = json.dumps(_canonical([prompt.answer, dict(prompt.columns)]), sort_keys=True)
        total.update(f"{prompt.key}\0{told}\0".encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def _canonical(value: Any) -> Any:
    """A value as JSON that does not depend on the file format: a gap is no column, a table's 52.0 is 52, numpy's arrays are lists."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {str(key): _canonical(each) for key, each in value.items() if not _is_gap(each)}
    if isinstance(value, (list, tuple)):
        return [None if _is_gap(each) else _canonical(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_canonical(each) for each in value), key=repr)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # addresses differ between processes


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_row(row: Any, where: str, prompt_column: str = "prompt", answer_column: str | None = None) -> Prompt:
    """A row as a prompt. A row without one, but with a whole chat in ``messages``, has the messages before the assistant's last one as its
    prompt, and that one as its column ``completion``.

    Raises:
        RheostatError: naming ``where`` it is and what is wrong with it.
    """
    if not isinstance(row, Mapping):
        raise RheostatError(f"{where} is a {type(row).__name__}, not an object with columns.")
    if prompt_column == "prompt" and row.get("prompt") is None and row.get("messages") is not None:
        row = _split_chat(row, where)
    if row.get(prompt_column) is None:
        raise RheostatError(
            f"{where} has no column {prompt_column!r} (it has {', '.join(map(str, row)) or 'none'}): rename it or name the prompt column."
        )
    if answer_column is not None and answer_column not in row:
        raise RheostatError(f"{where} has no answer column {answer_column!r} (it has {', '.join(map(str, row))}).")
    for column, value in row.items():
        if _depth(value) > DEEPEST:
            raise RheostatError(f"{where} has a column {column!r} that is nested more than {DEEPEST} deep: write it flat.")
        if not encodable(value):
            raise RheostatError(
                f"{where} holds half a surrogate pair in its column {column!r}, which is no text (\\ud800 to \\udfff alone): mend or "
                "remove the row."
            )
    content = _content(row[prompt_column], where)
    columns = {str(key): value for key, value in row.items() if key != prompt_column}
    _check_extras(columns, where)
    return Prompt(content, row[answer_column] if answer_column is not None else _answer(row), columns)


def _split_chat(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    chat = row["messages"]
    chat = chat.tolist() if hasattr(chat, "tolist") else chat
    if not isinstance(chat, list) or not all(isinstance(message, Mapping) for message in chat):
        raise RheostatError(f"{where} has 'messages' of type {type(chat).__name__}: they must be a list of chat messages.")
    rest = {key: value for key, value in row.items() if key not in ("messages", "prompt")}
    answered = len(chat) > 1 and chat[-1].get("role") == "assistant"
    return rest | ({"prompt": chat[:-1], "completion": chat[-1:]} if answered else {"prompt": chat})


def _depth(value: Any) -> int:
    """Containers within containers, counted up to the limit."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        inner = [list(each.values()) if isinstance(each, Mapping) else each for each in level if isinstance(each, (Mapping, list, tuple))]
        depth, level = depth + bool(inner), [each for held in inner for each in held]
    return depth


def encodable(value: Any) -> bool:
    """Whether all text in a nested value is text: half a surrogate pair, which JSON can hold, can be neither encoded nor written."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, Mapping):
        return all(encodable(key) and encodable(each) for key, each in value.items())
    return all(map(encodable, value)) if isinstance(value, (list, tuple)) else True


def _check_extras(columns: dict[str, Any], where: str) -> None:
    """The columns ``tools`` and ``chat_template_kwargs`` go to the chat template, so they must have its types."""
    for name, kind, what in (("tools", list, "a list of tools"), ("chat_template_kwargs", Mapping, "an object of options")):
        value = columns.get(name)
        if isinstance(value, str):  # tables cannot hold anything else
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise RheostatError(f"{where} has a column {name!r} that is not JSON ({shown_error(error)}): write {what}.") from error
        if value is not None and hasattr(value, "tolist"):
            value = value.tolist()
        if value is not None and not isinstance(value, kind):
            raise RheostatError(f"{where} has a column {name!r} of type {type(value).__name__}: it goes to the chat template, as {what}.")
        if value:
            columns[name] = value
        else:
            columns.pop(name, None)


def _content(content: Any, where: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        if not content.strip():
            raise RheostatError(f"{where} has an empty prompt: remove the row.")
        return content
    if hasattr(content, "tolist"):
        content = content.tolist()
    if not isinstance(content, list) or not content:
        raise RheostatError(f"{where} has a prompt of type {type(content).__name__}: it must be text or a list of chat messages.")
    for message in content:
        told = isinstance(message, Mapping) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        if not told:
            raise RheostatError(
                f"{where} has the chat message {message!r:.80}: every message needs a 'role' and a 'content' that are text."
            )
    return [{key: value for key, value in message.items() if value is not None} for message in content]  # tables fill gaps with null


def _answer(row: Mapping[str, Any]) -> Any:
    for column in ANSWER_COLUMNS:
        if row.get(column) is not None:
            return row[column]
    model = row.get("reward_model")
    return model.get("ground_truth") if isinstance(model, Mapping) else None
