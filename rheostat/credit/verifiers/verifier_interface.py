"""What a verifier is: rollouts in; reward, parts and *validity* out.

A failure of a grader is no wrong answer. Its row is invalid: no reward (NaN), counted, masked in training, shown with the reason, and
:func:`require_valid` stops the run when too many rows are. A row on which every grader declined on purpose (TRL's ``None``) is
``abstained``: masked as well, but no failure.

This module does not import torch until scores are built, so that the processes in which graders run start quickly.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rheostat.errors import RheostatError, shown

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = (2.0 - 2.0**-23) * 2.0**127
"""The largest float32, which is what rewards are kept as."""


@dataclass(frozen=True)
class Rollout:
    """One completion, with everything a grader may ask for."""

    prompt: str | list[dict[str, str]]
    """Text, or chat messages (``{"role": ..., "content": ...}``)."""
    completion: str
    """What the policy wrote: decoded without special tokens, or with them, by the run's ``reward_text``."""
    completion_ids: Sequence[int] = ()
    answer: Any = None
    """The reference answer, where the task has one."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The other columns of the prompt's row."""
    truncated: bool = False
    """The completion was cut at the length limit."""
    raw: str = ""
    """The completion with its special tokens (tags that are tokens among them), without the token that ends it."""

    @property
    def prompt_text(self) -> str:
        """The prompt as one string; the contents of chat messages are joined by line breaks."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(message["content"] for message in self.prompt)


@dataclass(frozen=True)
class Progress:
    """Position of training, for rewards that change with it (TRL's ``trainer_state``)."""

    step: int = 0
    total_steps: int = 0


@dataclass
class Grade:
    """One grader's result for one rollout: a number, nothing (``reward=None``: it abstains), or a failure."""

    reward: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    message: str = ""

    @classmethod
    def failure(cls, message: str) -> Grade:
        """The grader raised, hung, crashed or returned what is no number."""
        return cls(failed=True, message=message)


@dataclass(frozen=True)
class Scores:
    """The verdict on ``N`` rollouts.

    Raises:
        RheostatError: columns of another length, or a valid row whose reward is not finite.
    """

    reward: Tensor
    """[N] float32; NaN where not valid."""
    valid: Tensor
    """[N] bool: the reward may be trained on."""
    abstained: Tensor
    """[N] bool: not valid because every grader declined on purpose, which is not a failure."""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Named components, each [N] float32, NaN where the grader gave none."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Text that a grader attached to the rows (N strings), for readers of the rollouts."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Scalars a grader logged about the whole batch."""
    messages: dict[int, str] = field(default_factory=dict)
    """Row -> why it is invalid (or what else the reader should know about its grading)."""

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {"reward": self.reward, "valid": self.valid, "abstained": self.abstained, **self.parts, **self.notes}
        sizes = {name: list(getattr(column, "shape", (len(column),))) for name, column in columns.items()}
        if any(size != sizes["reward"] or len(size) != 1 for size in sizes.values()):
            raise RheostatError(f"Scores hold one value per rollout in every column, but the shapes are {sizes}.")
        wrong = (self.valid & ~self.reward.isfinite()).nonzero().flatten().tolist()
        if wrong:
            raise RheostatError(
                f"Row {wrong[0]} of the scores is valid, but its reward is {self.reward[wrong[0]].item()}: a finite number is needed."
            )

    def __len__(self) -> int:
        return int(self.reward.shape[0])

    @property
    def failed(self) -> Tensor:
        """[N] bool: a grader failed here."""
        return ~self.valid & ~self.abstained

    @property
    def invalid_share(self) -> float:
        """Share of rows on which a grader failed, in [0, 1]; 0 for no rows."""
        return float(self.failed.float().mean()) if len(self) else 0.0

    def select(self, rows: Sequence[int]) -> Scores:
        """The verdicts on some rows, in that order; scalars about the whole batch stay."""
        import torch

        index = torch.tensor(list(rows), dtype=torch.long)
        return Scores(
            self.reward[index],
            self.valid[index],
            self.abstained[index],
            {name: part[index] for name, part in self.parts.items()},
            {name: [notes[row] for row in rows] for name, notes in self.notes.items()},
            self.metrics,
            {new: self.messages[old] for new, old in enumerate(rows) if old in self.messages},
        )

    @classmethod
    def joined(cls, several: Sequence[Scores]) -> Scores:
        """The verdicts of several batches, one after the other; a part or note that a batch lacks is NaN or empty there."""
        import torch

        names = dict.fromkeys(name for scores in several for name in scores.parts)
        noted = dict.fromkeys(name for scores in several for name in scores.notes)
        starts = [sum(map(len, several[:number])) for number in range(len(several))]
        return cls(
            torch.cat([scores.reward for scores in several]),
            torch.cat([scores.valid for scores in several]),
            torch.cat([scores.abstained for scores in several]),
            {name: torch.cat([scores.parts.get(name, torch.full((len(scores),), math.nan)) for scores in several]) for name in names},
            {name: [note for scores in several for note in scores.notes.get(name, [""] * len(scores))] for name in noted},
            {name: value for scores in several for name, value in scores.metrics.items()},
            {start + row: text for start, scores in zip(starts, several, strict=True) for row, text in scores.messages.items()},
        )

    @classmethod
    def from_grades(cls, grades: Sequence[Grade], metrics: Mapping[str, float] | None = None) -> Scores:
        """Stack the grades of ``N`` rows. A reward or part that is no finite float32 makes its row invalid or the part NaN."""
        import torch

        grades = [_finite(grade) for grade in grades]
        names = list(dict.fromkeys(name for grade in grades for name in grade.parts))
        noted = list(dict.fromkeys(name for grade in grades for name in grade.notes))
        return cls(
            reward=torch.tensor([math.nan if grade.reward is None else grade.reward for grade in grades], dtype=torch.float32),
            valid=torch.tensor([grade.reward is not None for grade in grades], dtype=torch.bool),
            abstained=torch.tensor([grade.reward is None and not grade.failed for grade in grades], dtype=torch.bool),
            parts={name: torch.tensor([grade.parts.get(name, math.nan) for grade in grades], dtype=torch.float32) for name in names},
            notes={name: [grade.notes.get(name, "") for grade in grades] for name in noted},
            metrics=dict(metrics or {}),
            messages={row: grade.message for row, grade in enumerate(grades) if grade.message},
        )


def number_of(value: Any) -> float | None:
    """What may stand for a number (Python's, numpy's, a tensor of one, a truth value) as a float; None for everything else.

    Text is no number, whatever it reads. What lies beyond every float becomes infinite.
    """
    if value is None or isinstance(value, (str, bytes, bytearray)):
        return None
    try:
        plain = value.item() if hasattr(value, "item") else value
        if isinstance(plain, numbers.Complex) and not isinstance(plain, numbers.Real):
            return None
        return float(plain)
    except OverflowError:
        return math.inf if plain > 0 else -math.inf
    except Exception:  # the value is the user's, and so is what it raises
        return None


def _finite(grade: Grade) -> Grade:
    """A grade whose numbers float32 holds and whose texts can be written."""
    notes = {_written(name): _written(text) for name, text in grade.notes.items()}
    parts = {name: _or_nan(number_of(part)) for name, part in grade.parts.items()}
    grade = replace(grade, message=_written(grade.message), notes=notes, parts=parts)
    if grade.failed:
        return Grade(None, grade.parts, grade.notes, True, grade.message or "the grader failed")
    if grade.reward is None:
        return grade
    reward = _or_nan(number_of(grade.reward))
    if math.isnan(reward):
        why = f"the grader returned {shown(grade.reward)}, which is not a reward: rewards are finite numbers of at most {LARGEST:.2g}"
        return Grade(None, grade.parts, grade.notes, True, why)
    return replace(grade, reward=reward)


def _or_nan(value: float | None) -> float:
    """A number that float32 holds; NaN for every other."""
    return value if value is not None and abs(value) <= LARGEST else math.nan


def grades_of(scores: Scores) -> list[Grade]:
    """Scores as one grade per row."""
    grades = []
    for row, (reward, valid, abstained) in enumerate(
        zip(scores.reward.tolist(), scores.valid.tolist(), scores.abstained.tolist(), strict=True)
    ):
        parts = {name: float(values[row]) for name, values in scores.parts.items() if values[row] == values[row]}
        notes = {name: values[row] for name, values in scores.notes.items()}
        grades.append(Grade(reward if valid else None, parts, notes, not valid and not abstained, scores.messages.get(row, "")))
    return grades


def _written(text: str) -> str:
    """Text that can be written: half a surrogate pair, which a grader may return, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


@runtime_checkable
class Verifier(Protocol):
    """The native interface: anything with a name and this method."""

    name: str

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order."""
        ...


class Ungraded:
    """Says nothing of any completion: of runs in which nothing can be graded."""

    name = "ungraded"

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Abstain everywhere."""
        return Scores.from_grades([Grade() for _ in rollouts])


def require_valid(scores: Scores, max_invalid_share: float = 0.1, *, grader: str = "The reward function") -> None:
    """Stop when graders failed on too many rows.

    Args:
        scores: of one or several batches.
        max_invalid_share: share of failed rows that is still tolerated, in [0, 1].
        grader: its name, for the message.

    Raises:
        RheostatError: naming the share, the limit and the first distinct reasons.
    """
    if scores.invalid_share <= max_invalid_share:
        return
    rows = scores.failed.nonzero().flatten().tolist()
    reasons = "; ".join(f"row {row}: {text}" for row, text in _first_distinct((row, scores.messages.get(row, "")) for row in rows))
    raise RheostatError(
        f"{grader} failed on {len(rows)} of {len(scores)} completions ({scores.invalid_share:.0%}, more than the allowed "
        f"{max_invalid_share:.0%}): {reasons}. Failed rows are masked, never counted as 0; mend the reward function or raise the limit"
        + (" of time (--reward-timeout)." if "its limit of" in reasons else ".")
    )


def _first_distinct(messages: Iterable[tuple[int, str]], limit: int = 3) -> list[tuple[int, str]]:
    seen: dict[str, int] = {}
    for row, text in messages:
        seen.setdefault(text, row)
    return [(row, text.rstrip(".")) for text, row in list(seen.items())[:limit]]
