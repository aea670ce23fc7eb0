"""The user's own prompts: JSON lines, parquet, or a ``datasets`` object.

A row has a prompt (text or chat messages) and, usually, a reference answer; every other column is kept for the reward function. Rows are
split into train and validation by the hash of the prompt, so duplicates stay on one side; the train stream is shuffled anew every epoch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from rheostat.credit.verifiers.built_in import load_rewards
from rheostat.credit.verifiers.interface import Verifier
from rheostat.errors import MissingExtra, RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.interface import LanguageTask, Limits, Prompt, Split, is_validation

ANSWER_COLUMNS = ("answer", "solution", "ground_truth")
"""Where the reference answer is looked for when no column is named; then in verl's ``reward_model``."""


class FilePrompts(LanguageTask):
    """Prompts from rows that are in memory.

    Args:
        rows: one mapping per prompt.
        reward: what grades (see :func:`load_reward`); several as a list.
        name: for messages.
        prompt_column: holds the prompt: a string, or a list of ``{"role": ..., "content": ...}``.
        answer_column: holds the reference answer; None looks through ``ANSWER_COLUMNS`` and verl's ``reward_model.ground_truth``.
        validation: rows to validate on; None sets a share of ``rows`` aside.
        validation_share: that share, in [0, 1).
        max_prompt_tokens, max_new_tokens: default limits.
        reward_weights: one for each reward.
        reward_options: passed on to :func:`load_reward`.

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
        reward_weights: Sequence[float] | None = None,
        reward_options: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {validation_share}.")
        self.name, self.validation_share = name, validation_share
        self.limits = Limits(max_prompt_tokens, max_new_tokens)
        self._reward = list(reward) if isinstance(reward, (list, tuple)) else [reward]
        self._reward_weights, self._reward_options = reward_weights, dict(reward_options or {})
        prompts = [read_row(row, where, prompt_column, answer_column) for where, row in named_rows(rows, name)]
        if not prompts:
            raise RheostatError(f"There are no prompts in {name}: give at least one row.")
        if validation is None:
            self._train = [prompt for prompt in prompts if not is_validation(prompt.key, validation_share)]
            self._validation = [prompt for prompt in prompts if is_validation(prompt.key, validation_share)]
        else:
            self._train = prompts
            self._validation = [read_row(row, where, prompt_column, answer_column) for where, row in named_rows(validation, "validation")]
            shared = {prompt.key for prompt in prompts} & {prompt.key for prompt in self._validation}
            if shared:
                raise RheostatError(f"{len(shared)} prompts of {name} are also in the validation rows: remove them from one of the two.")
        if not self._train:
            raise RheostatError(f"All {len(prompts)} prompts of {name} fell into validation: give more rows or lower validation_share.")

    def __len__(self) -> int:
        """Number of training prompts."""
        return len(self._train)

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

    def verifier(self) -> Verifier:
        """The reward given, made anew."""
        options = {"sandbox": self.sandbox, "needs": self.reward_needs, **self._reward_options}
        return load_rewards(self._reward, self._reward_weights, **options)


def load_prompts(source: str | Path | Any, reward: Any = "exact", **options: Any) -> FilePrompts:
    """A task from a file, a folder or a ``datasets`` object.

    Args:
        source: ``*.jsonl``/``*.json`` lines, ``*.parquet``, a folder written by ``Dataset.save_to_disk``, or any iterable of rows.
        reward: what grades.
        options: as for :class:`FilePrompts`; ``validation`` may be a source of the same kinds.

    Raises:
        RheostatError: no such file, unknown kind, malformed line, or what :class:`FilePrompts` refuses.
    """
    validation = options.pop("validation", None)
    if validation is not None:
        options["validation"] = read_rows(validation)
    name = str(source) if isinstance(source, (str, Path)) else "the prompts"
    return FilePrompts(read_rows(source), reward, **{"name": name, **options})


def read_rows(source: str | Path | Any, what: str = "prompts") -> Iterable[Mapping[str, Any]]:
    """The rows of a source (see :func:`load_prompts`); ``what`` they are, for messages."""
    if not isinstance(source, (str, Path)):
        if isinstance(source, Mapping):  # a datasets.DatasetDict, among others
            raise RheostatError(f"The {what} are a mapping with the keys {', '.join(map(str, source))}: pass one of its entries.")
        if not isinstance(source, Iterable):
            raise RheostatError(f"{what.capitalize()} cannot be read from a {type(source).__name__}: give a path or rows.")
        return cast("Iterable[Mapping[str, Any]]", source)
    path = Path(source).expanduser()
    if not path.exists():
        raise RheostatError(f"There is no file of {what} at {source}: check the path.")
    if path.is_dir():
        return _read_folder(path)
    if path.suffix in (".jsonl", ".json", ".ndjson"):
        return _read_lines(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    raise RheostatError(
        f"{what.capitalize()} cannot be read from {source}: give a .jsonl or .parquet file, or a folder written by save_to_disk."
    )


def read_row(row: Any, where: str, prompt_column: str = "prompt", answer_column: str | None = None) -> Prompt:
    """A row as a prompt.

    Raises:
        RheostatError: naming ``where`` it is and what is wrong with it.
    """
    if not isinstance(row, Mapping):
        raise RheostatError(f"{where} is a {type(row).__name__}, not an object with columns.")
    if row.get(prompt_column) is None:
        raise RheostatError(
            f"{where} has no column {prompt_column!r} (it has {', '.join(map(str, row)) or 'none'}): rename it or name the prompt column."
        )
    if answer_column is not None and answer_column not in row:
        raise RheostatError(f"{where} has no answer column {answer_column!r} (it has {', '.join(map(str, row))}).")
    content = _content(row[prompt_column], where)
    columns = {str(key): value for key, value in row.items() if key != prompt_column}
    return Prompt(content, row[answer_column] if answer_column is not None else _answer(row), columns)


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
    return [dict(message) for message in content]


def _answer(row: Mapping[str, Any]) -> Any:
    for column in ANSWER_COLUMNS:
        if row.get(column) is not None:
            return row[column]
    model = row.get("reward_model")
    return model.get("ground_truth") if isinstance(model, Mapping) else None


class _Line(dict[str, Any]):
    """A row that knows the line it was read from."""

    where = ""


def named_rows(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row with where it stands, for messages."""
    for number, row in enumerate(rows, 1):
        yield row.where if isinstance(row, _Line) else f"Row {number} of {name}", row


def _read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.rstrip())
                except json.JSONDecodeError as error:
                    what = error.msg.removesuffix(" at")
                    raise RheostatError(
                        f"Line {number} of {path} is not JSON ({what} at column {error.colno}): write one object per line."
                    ) from error
                if not isinstance(row, dict):
                    raise RheostatError(f"Line {number} of {path} is a JSON {type(row).__name__}: write one object per line.")
                yield _line(row, f"Line {number} of {path}")
        except UnicodeDecodeError as error:
            raise RheostatError(f"{path} is not text in UTF-8 ({error.reason}): convert it.") from error


def _line(row: dict[str, Any], where: str) -> _Line:
    line = _Line(row)
    line.where = where
    return line


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "data", "Reading parquet files") from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise RheostatError(f"{path} is not a parquet file ({error}): write it again.") from error


def _read_folder(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "data", "Reading a folder of a saved data set") from error
    try:
        found = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise RheostatError(
            f"{path} is no folder written by Dataset.save_to_disk: give such a folder, or a .jsonl or .parquet file."
        ) from error
    return read_rows(found)
