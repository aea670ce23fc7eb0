"""Preference data: pairs, labelled answers, ranked lists and scored answers, from any source that
:mod:`rheostat.tasks.language.reading` reads, with the columns that people have (TRL's conventions).

| columns | what they are |
|---|---|
| ``prompt``, ``chosen``, ``rejected`` | a pair; with ``margin``, or ``score_chosen`` and ``score_rejected``, by how much |
| ``chosen``, ``rejected`` | a pair whose prompt is what both begin with (the messages of two chats, or the text of two transcripts) |
| ``prompt``, ``completion``, ``label`` | one answer that is desirable or not |
| ``prompt``, ``completions``, ``ranks`` | several answers, 1 is the best; equal ranks are ties |
| ``prompt``, ``completions``, ``scores`` | several answers with a number each |
| ``prompt``, ``completion``, ``score`` | one answer with a number; the rows of one prompt belong together |
| ``prompt``, ``reference``, ``chosen``, ``rejected`` | a pair beside a reference answer |
| ``prompt``, ``completions``, ``policies`` | answers of a zoo of policies, and the name of the policy that wrote each; also with ranks |
| ``prompt``, ``completion``, ``policy`` | one answer of a zoo; the rows of one prompt belong together |

Prompts and answers are text or chat messages. A method learns from pairs, labels, scores, pairs beside a reference or a zoo, and rows are
turned into those: a pair is two labels, ranked or scored answers are all the pairs of which one is better; beside a reference, that is the
best answer and the pairs are of the others. What cannot be turned is refused. Nothing is ever cut. Ties make no pair, and pairs that
contradict each other are kept, because annotators differ; both are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from rheostat.credit.verifiers.verifier_interface import number_of
from rheostat.errors import RheostatError, shown
from rheostat.tasks.language.prompt_files import FilePrompts, check_knobs
from rheostat.tasks.language.reading import named_rows, placed, read_rows
from rheostat.tasks.language.task_interface import Prompt, content_key

Lesson = Literal["pairs", "labels", "scores", "references", "zoo"]
"""What a method learns from."""
Unusable = Literal["error", "drop"]
FORMS = (
    "prompt, chosen and rejected; or prompt, completion and label; or prompt, completions and ranks (or scores, or policies); or prompt, "
    "completion and score (or policy)"
)
OWN = (
    "prompt", "chosen", "rejected", "completion", "completions", "label", "ranks", "scores", "score", "margin", "score_chosen",
    "score_rejected", "policies", "policy",
)  # fmt: skip
"""Columns that are read here; all others go along."""


@dataclass(frozen=True)
class Answer:
    """One answer and what an annotator said of it: the larger the better."""

    text: str
    worth: float
    policy: str | None = None
    """Who wrote it, where that is known."""


@dataclass
class Annotated:
    """One row: a prompt, its answers, and what they can teach."""

    where: str
    prompt: Any
    answers: list[Answer]
    kind: Literal["order", "label", "rank", "score", "policy"]
    """What the worth of an answer is."""
    columns: dict[str, Any] = field(default_factory=dict)
    pair: bool = False
    """Whether the row has a chosen and a rejected answer."""

    @property
    def alone(self) -> bool:
        """Whether it is one answer of several that a prompt has in rows of their own."""
        return self.kind in ("score", "policy") and len(self.answers) == 1


class PreferencePrompts(FilePrompts):
    """Prompts with annotated answers. A row is a pair (columns ``chosen``, ``rejected``, perhaps ``margin``), a labelled answer
    (``completion``, ``label``) or a scored one (``completion``, ``score``), a pair beside a ``reference``, or answers of a zoo
    (``completions``, ``policies``).

    Args:
        rows: as read.
        lesson: what they are turned into.
        unusable: a pair of two equal answers is an error, or is left out and counted.
        reward: what else can grade answers, for measurements.
        options: as for :class:`~rheostat.tasks.language.prompt_files.FilePrompts`.

    Raises:
        RheostatError: a row with missing columns, without text or with a number that is not finite; rows that cannot teach the lesson; or
            what :class:`~rheostat.tasks.language.prompt_files.FilePrompts` refuses.
    """

    def __init__(self, rows: Any, lesson: Lesson = "pairs", *, unusable: Unusable = "error", reward: Any = "exact", **options: Any) -> None:
        self.lesson, self.unusable = lesson, unusable
        self.counts: dict[str, int] = {}
        """What was counted while reading: ties, contradictions, and rows that were left out, by reason."""
        name = options.setdefault("name", "the preferences")
        held_out, self._prompt = options.pop("validation", None), options.pop("prompt_column", "prompt")
        taught = self._taught(rows, name)
        beside = None if held_out is None else self._taught(held_out, "the validation rows")
        super().__init__(taught, reward, **options, validation=beside)
        if lesson in ("pairs", "references"):
            self.counts["contradictions"] = contradictions([prompt for _, prompt in self.named])

    def _taught(self, rows: Any, name: str) -> list[Mapping[str, Any]]:
        read = [read_annotated(row, where, self._prompt) for where, row in named_rows(rows, name)]
        if not read:
            raise RheostatError(f"There are no preferences in {name}: give at least one row.")
        turned = {"pairs": self._pairs, "labels": self._labels, "scores": self._scores, "references": self._references, "zoo": self._zoo}
        found = list(turned[self.lesson](read))
        if not found:
            told = ", ".join(f"{count} {what}" for what, count in self.counts.items())
            raise RheostatError(f"No row of {name} teaches {self.lesson} ({told or 'none has answers'}): give others.")
        return found

    def _pairs(self, read: list[Annotated]) -> Iterator[Mapping[str, Any]]:
        for each in together(read):
            if each.kind == "label":
                raise cannot(each, "labels of single answers make no pairs: use kto")
            if each.kind == "policy":
                raise cannot(each, "the names of policies say who wrote an answer, not which is better: use polar")
            yield from self._ordered(each, each.answers)

    def _ordered(self, each: Annotated, answers: Sequence[Answer]) -> Iterator[Mapping[str, Any]]:
        for one, other in combinations(answers, 2):
            if one.worth == other.worth:
                self._count("ties")
                continue
            chosen, rejected = (one, other) if one.worth > other.worth else (other, one)
            if chosen.text == rejected.text:
                self._same(each)
                continue
            gap = {"margin": chosen.worth - rejected.worth} if each.kind == "score" else {}
            yield placed(each.columns | gap | {"prompt": each.prompt, "chosen": chosen.text, "rejected": rejected.text}, each.where)

    def _references(self, read: list[Annotated]) -> Iterator[Mapping[str, Any]]:
        """Pairs beside a reference: that of the row, else the best of at least three answers, which leaves the pairs."""
        for each in together(read):
            reference, answers = each.columns.get("reference"), each.answers
            if each.kind in ("label", "policy"):
                raise cannot(each, "it orders no answers: give ranks, scores, or a pair with the column reference")
            if reference is None:
                if each.pair or len(answers) < 3:
                    raise cannot(
                        each, "a pair needs a reference answer beside it: give the column reference, or at least three ordered answers"
                    )
                answers = sorted(answers, key=lambda answer: -answer.worth)
                if answers[0].worth == answers[1].worth:
                    self._count("rows with two best answers left out")
                    continue
                reference, answers = answers[0].text, answers[1:]
            told = replace(each, columns=each.columns | {"reference": _answer(reference, each.where, "reference", each.prompt)})
            for pair in self._ordered(told, answers):
                if told.columns["reference"] in (pair["chosen"], pair["rejected"]):
                    self._same(each, "a candidate")
                else:
                    yield pair

    def _zoo(self, read: list[Annotated]) -> Iterator[Mapping[str, Any]]:
        for each in together(read):
            policies, texts = [answer.policy for answer in each.answers], [answer.text for answer in each.answers]
            if None in policies:
                raise cannot(each, "it does not say who wrote the answers: give the column policies, or policy")
            if triples_of(policies, texts):
                yield placed(each.columns | {"prompt": each.prompt, "completions": texts, "policies": policies}, each.where)
            else:
                self._count("prompts without two different answers of one policy and a third of another one left out")

    def _labels(self, read: list[Annotated]) -> Iterator[Mapping[str, Any]]:
        for each in read:
            if each.kind != "label" and not each.pair:
                raise cannot(each, "ranks and scores say which answer is better, not which is desirable: give labels or pairs")
            if each.pair and each.answers[0].text == each.answers[1].text:
                self._same(each)
                continue
            labels = [True, False] if each.pair else [bool(each.answers[0].worth)]
            for answer, label in zip(each.answers, labels, strict=True):
                yield placed(each.columns | {"prompt": each.prompt, "completion": answer.text, "label": label}, each.where)

    def _scores(self, read: list[Annotated]) -> Iterator[Mapping[str, Any]]:
        for each in read:
            if each.kind != "score":
                raise cannot(each, "a method of scores needs a number for every answer: give the column score or scores")
            for answer in each.answers:
                yield placed(each.columns | {"prompt": each.prompt, "completion": answer.text, "score": answer.worth}, each.where)

    def _same(self, each: Annotated, which: str = "its rejected answer") -> None:
        if self.unusable == "error":
            other = "its chosen" if which == "its rejected answer" else "its reference"
            raise RheostatError(
                f"{each.where} has the same text as {other} and {which}: remove the row, or leave such rows out (--unusable drop)."
            )
        self._count("pairs of equal answers left out")

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    @property
    def texts(self) -> list[list[str]]:
        """The answers of every row, in the order of ``named``."""
        if self.lesson == "zoo":
            return [list(prompt.columns["completions"]) for _, prompt in self.named]
        columns = {"pairs": ("chosen", "rejected"), "references": ("reference", "chosen", "rejected")}.get(self.lesson, ("completion",))
        return [[prompt.columns[column] for column in columns] for _, prompt in self.named]

    def at_most(self, tokens: int, lengths: Callable[[list[str]], list[int]]) -> None:
        """Refuse or leave out rows with an answer that is longer than completions may be.

        Args:
            tokens: that a completion may have, its end included.
            lengths: of answers in tokens, their ends included.

        Raises:
            RheostatError: a longer answer, where they are errors, or no row is left.
        """
        texts = self.texts
        count = iter(lengths([text for each in texts for text in each]))
        long = {number for number, each in enumerate(texts) if max([next(count) for _ in each]) > tokens}
        if long and self.unusable == "error":
            where = self.named[min(long)][0]
            raise RheostatError(
                f"{len(long)} of {len(self.named)} rows of {self.name} have an answer of more than {tokens} tokens, the first of them "
                f"{where}: raise max_new_tokens, or leave such rows out (--unusable drop)."
            )
        if long:
            before = self.dropped
            self.drop(long)
            self.dropped = before  # what is counted there are prompts that are too long
            self.counts["rows with an answer that is too long left out"] = len(long)

    def held_out(self, count: int) -> list[Prompt]:
        """The first ``count`` rows of the validation side, in the order of the file; a prompt comes as often as it has rows.

        Raises:
            RheostatError: there are none.
        """
        self.validation(1)
        return self._validation[:count]

    def sentences(self) -> list[str]:
        """What was counted, for whoever starts a run."""
        said = {
            "ties": "{} pairs of {} are ties and teach nothing.",
            "contradictions": "{} pairs of {} contradict another one, with the same two answers the other way round; they are kept.",
        }
        return [said.get(what, "{} " + what + " of {}.").format(count, self.name) for what, count in self.counts.items() if count]


def load_preferences(source: str | Path | Any, lesson: Lesson = "pairs", **options: Any) -> PreferencePrompts:
    """A task from a file of preferences (JSON lines, parquet, csv), a folder of ``datasets``, or rows.

    Args:
        source: see :func:`~rheostat.tasks.language.reading.read_rows`.
        lesson: what the rows are turned into.
        options: as for :class:`PreferencePrompts`; ``validation`` may be a source of the same kinds.

    Raises:
        RheostatError: no such file, unknown kind, malformed line, or what :class:`PreferencePrompts` refuses.
    """
    check_knobs({name: value for name, value in options.items() if name != "unusable"})
    if options.get("validation") is not None:
        options["validation"] = read_rows(options["validation"], "preferences")
    name = str(source) if isinstance(source, (str, Path)) else "the preferences"
    return PreferencePrompts(read_rows(source, "preferences"), lesson, **{"name": name, **options})


def cannot(each: Annotated, why: str) -> RheostatError:
    """The refusal of a row that cannot teach what is asked for."""
    return RheostatError(f"{each.where} cannot be used: {why}.")


def together(read: list[Annotated]) -> Iterator[Annotated]:
    """Rows whose answers are compared with each other: single answers of one prompt, with scores or with the names of who wrote them, are
    one row, at the place of the first."""
    single: dict[str, Annotated] = {}
    for each in read:
        if each.alone:
            key = content_key(each.prompt)
            if key in single:
                single[key].answers.extend(each.answers)
            else:
                single[key] = replace(each, answers=list(each.answers))
    emitted: set[str] = set()
    for each in read:
        if not each.alone:
            yield each
        elif (key := content_key(each.prompt)) not in emitted:
            emitted.add(key)
            yield single[key]


def contradictions(pairs: Sequence[Prompt]) -> int:
    """How many pairs stand the other way round in the same data."""
    seen = {(pair.key, pair.columns["chosen"], pair.columns["rejected"]) for pair in pairs}
    return sum((pair.key, pair.columns["rejected"], pair.columns["chosen"]) in seen for pair in pairs)


# --- rows -------------------------------------------------------------------------------------------------------------------------------


def read_annotated(row: Any, where: str, prompt_column: str = "prompt") -> Annotated:
    """A row with its answers.

    Args:
        row: as it was read.
        where: it stands, for messages.
        prompt_column: holds the prompt.

    Raises:
        RheostatError: missing columns, an answer that is no text, a prompt that both answers of a pair do not share, or a number that is
            not finite.
    """
    if not isinstance(row, Mapping):
        raise RheostatError(f"{where} is a {type(row).__name__}, not an object with columns.")
    row = {str(key): _plain(value) for key, value in row.items() if value is not None}
    if prompt_column != "prompt":
        if prompt_column not in row:
            raise RheostatError(f"{where} has no column {prompt_column!r} (it has {', '.join(row) or 'none'}): rename it.")
        row["prompt"] = row.pop(prompt_column)
    columns = {key: value for key, value in row.items() if key not in OWN}
    if "chosen" in row or "rejected" in row:
        return _read_pair(row, columns, where)
    if "prompt" not in row:
        raise RheostatError(f"{where} has no column 'prompt' (it has {', '.join(row) or 'none'}): give {FORMS}.")
    if "completions" in row:
        return _read_list(row, columns, where)
    if "completion" not in row or not row.keys() & {"label", "score", "policy"}:
        raise RheostatError(f"{where} has the columns {', '.join(row)}, which are no preferences: give {FORMS}.")
    text = _answer(row["completion"], where, "completion")
    if "label" in row:
        if row["label"] not in (True, False, 0, 1):
            raise RheostatError(f"{where} has the label {shown(row['label'])}: it must be true (desirable) or false.")
        return Annotated(where, row["prompt"], [Answer(text, float(row["label"]))], "label", columns)
    policy = _policy(row["policy"], where) if "policy" in row else None
    if "score" not in row:
        return Annotated(where, row["prompt"], [Answer(text, 0.0, policy)], "policy", columns)
    return Annotated(where, row["prompt"], [Answer(text, _number(row["score"], where, "score"), policy)], "score", columns)


def _read_pair(row: dict[str, Any], columns: dict[str, Any], where: str) -> Annotated:
    missing = [name for name in ("chosen", "rejected") if name not in row]
    if missing:
        raise RheostatError(f"{where} has no column {missing[0]!r} (it has {', '.join(row)}): a pair has chosen and rejected.")
    if "prompt" not in row:
        row = row | _common_prompt(row["chosen"], row["rejected"], where)
    texts = [_answer(row[name], where, name, row["prompt"]) for name in ("chosen", "rejected")]
    kind: Literal["order", "score"]
    scored = [name for name in ("score_chosen", "score_rejected") if name in row]
    if len(scored) == 2:
        worths, kind = [_number(row[name], where, name) for name in scored], "score"
        if worths[0] < worths[1]:
            raise RheostatError(f"{where} gives its rejected answer the higher score ({worths[1]:g} > {worths[0]:g}): mend or remove it.")
    else:
        gap = _number(row["margin"], where, "margin") if "margin" in row else 1.0
        if gap < 0:
            raise RheostatError(f"{where} has the margin {gap:g}: it says by how much the chosen answer is better, so at least 0.")
        worths, kind = [1.0, 0.0], "order"
        columns = columns | ({"margin": gap} if "margin" in row else {})
    answers = [Answer(text, worth) for text, worth in zip(texts, worths, strict=True)]
    return Annotated(where, row["prompt"], answers, kind, columns, pair=True)


def _read_list(row: dict[str, Any], columns: dict[str, Any], where: str) -> Annotated:
    answers, told = row["completions"], [name for name in ("ranks", "scores", "policies") if name in row]
    if not told:
        raise RheostatError(f"{where} has several completions and neither 'ranks' nor 'scores': say which of them is better.")
    for by in told:
        if not isinstance(answers, list) or not isinstance(row[by], list) or len(answers) != len(row[by]) or len(answers) < 2:
            raise RheostatError(f"{where} must have two lists of one length in 'completions' and {by!r}, with at least two entries.")
    texts = [_answer(each, where, "completions") for each in answers]
    policies = [_policy(each, where) for each in row["policies"]] if "policies" in told else [None] * len(texts)
    kind: Literal["rank", "score", "policy"] = "rank" if "ranks" in told else "score" if "scores" in told else "policy"
    sign, by = (-1.0, "ranks") if kind == "rank" else (1.0, "scores")
    worths = [0.0] * len(texts) if kind == "policy" else [sign * _number(each, where, by) for each in row[by]]
    found = [Answer(text, worth, policy) for text, worth, policy in zip(texts, worths, policies, strict=True)]
    return Annotated(where, row["prompt"], found, kind, columns)


def triples_of(policies: Sequence[Any], texts: Sequence[str] | None = None) -> list[tuple[int, int, int]]:
    """Every triple of places (reference, candidate of the same policy, candidate of another one) of different answers, in order.

    Args:
        policies: who wrote each answer.
        texts: the answers; None where all differ. Equal ones are never in one triple: telling them apart would be matching strings, or
            impossible.
    """
    places = range(len(policies))
    told = range(len(policies)) if texts is None else texts
    return [
        (one, same, other)
        for one in places
        for same in places
        for other in places
        if policies[one] == policies[same] != policies[other] and len({told[one], told[same], told[other]}) == 3
    ]


def _policy(value: Any, where: str) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise RheostatError(f"{where} has {shown(value)} as the name of a policy: give a text or a whole number.")
    return str(value)


def _number(value: Any, where: str, column: str) -> float:
    number = number_of(value)
    if number is None or not math.isfinite(number):
        raise RheostatError(f"{where} has {shown(value)} in its column {column!r}: a finite number is needed.")
    return number


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _answer(value: Any, where: str, column: str, prompt: Any = None) -> str:
    """An answer as text: itself, or the content of the assistant's last message. A chat that repeats its prompt must repeat it exactly."""
    if isinstance(value, list):
        if not value or not isinstance(value[-1], Mapping) or value[-1].get("role") != "assistant":
            raise RheostatError(f"{where} has messages in its column {column!r} that do not end with the assistant's: an answer does.")
        before = [_message(each) for each in value[:-1]]
        if before and before != ([_message(each) for each in prompt] if isinstance(prompt, list) else None):
            raise RheostatError(f"{where} has messages before the answer in its column {column!r} that are not those of its prompt.")
        value = value[-1].get("content")
    if not isinstance(value, str):
        raise RheostatError(f"{where} has no text in its column {column!r}: an answer is text, or messages that end with the assistant's.")
    if not value.strip():
        raise RheostatError(f"{where} has an empty answer in its column {column!r}: remove the row or give it a text.")
    return value


def _message(message: Any) -> Any:
    return {key: value for key, value in message.items() if value is not None} if isinstance(message, Mapping) else message


def _common_prompt(chosen: Any, rejected: Any, where: str) -> dict[str, Any]:
    """Prompt, chosen and rejected of a pair whose answers both begin with the prompt."""
    if isinstance(chosen, list) and isinstance(rejected, list):
        shared = _shared(list(map(_message, chosen)), list(map(_message, rejected)))
        shared = min(shared, len(chosen) - 1, len(rejected) - 1)
        if shared < 1:
            raise RheostatError(f"{where} has no prompt, and its two chats share no first message: add the column 'prompt'.")
        return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise RheostatError(f"{where} has no prompt, and its answers are not two chats or two texts: add the column 'prompt'.")
    shared = _shared(chosen, rejected)
    shared -= shared > 0 and chosen[shared - 1] == " "  # the space belongs to the answer
    if shared < 1:
        raise RheostatError(f"{where} has no prompt, and its two texts share no beginning: add the column 'prompt'.")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many entries two sequences share at their beginnings."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
