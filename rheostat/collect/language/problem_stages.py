"""What becomes of the problems of a batch in three stages: which go on, which are learned from, and what is imitated."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from rheostat.collect.language.pass_rates import RIGHT
from rheostat.collect.language.prompt_groups import Graded
from rheostat.tasks.language.task_interface import Prompt
from rheostat.trajectories import Trajectories

DIRECT, DECOMPOSITION, REFLECTION = STAGES = (0, 1, 2)
NAMES = ("direct", "decomposition", "reflection")
NOT_RUN = -1
_REFERS = re.compile(r"\b(attempts?|previous(ly)?|earlier)\b", re.IGNORECASE)


def refers_to_attempts(text: str) -> bool:
    """Whether a text speaks of attempts that a reader of the plain prompt has not seen."""
    return _REFERS.search(text) is not None


class Tally(NamedTuple):
    """What became of the problems of a batch."""

    right: Tensor
    """``[stages, P]`` int64, right answers of each stage; -1 where it was not run."""
    graded: Tensor
    """``[stages, P]`` int64, answers with a grade."""
    size: int
    """Answers of a group."""

    def failing(self, stage: int) -> list[int]:
        """Problems that go on: every answer of this stage is graded, and wrong."""
        return _places((self.right[stage] == 0) & (self.graded[stage] == self.size))

    def learned(self, stages: Sequence[int]) -> list[tuple[int, int]]:
        """Pairs (problem, stage) whose answers are partly right: those that a policy gradient can use."""
        return [
            (problem, stage)
            for stage in sorted(stages)
            for problem in _places((self.right[stage] > 0) & (self.right[stage] < self.graded[stage]))
        ]

    def taught(self) -> list[tuple[int, int]]:
        """Pairs (problem, stage) of the later stages with right answers."""
        return [(problem, stage) for stage in STAGES[1:] for problem in _places(self.right[stage] > 0)]

    def dropped(self) -> list[int]:
        """Problems that no stage has solved."""
        return _places((self.right <= 0).all(0))


def _places(chosen: Tensor) -> list[int]:
    found: list[int] = chosen.nonzero()[:, 0].tolist()
    return found


def run_stages(
    right: Tensor, graded: Tensor, size: int, attempt: Callable[[int, list[int]], tuple[list[int], Tensor, Tensor]], last: int
) -> Tally:
    """Ask the problems that fail again, stage by stage.

    Args:
        right, graded: ``[P]`` int64 of the plain prompts.
        size: answers of a group.
        attempt: of (stage, failing problems), those that were asked, ``n`` of them, and their right and their graded answers, ``[n]``.
        last: stage.
    """
    shape = (len(STAGES), len(right))
    tally = Tally(torch.full(shape, NOT_RUN), torch.full(shape, NOT_RUN), size)
    tally.right[DIRECT], tally.graded[DIRECT] = right, graded
    for stage in STAGES[1 : last + 1]:
        failing = tally.failing(stage - 1)
        if not failing:
            break
        asked, found, known = attempt(stage, failing)
        tally.right[stage, asked], tally.graded[stage, asked] = found, known
    return tally


@dataclass
class Problem:
    """A problem of the batch under way."""

    prompt: Prompt
    ids: list[int]
    """Of its plain prompt."""
    number: int
    """In the run."""
    wrong: list[str] = field(default_factory=list)
    """Different wrong answers so far."""


@dataclass
class Asked:
    """The groups of one stage."""

    graded: Graded
    right: Tensor
    """``[n, G]`` bool."""
    place: dict[int, int]
    """Problem to its group."""
    attempts: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Wrong answers that a problem's prompt has shown."""

    def rows(self, problem: int) -> list[int]:
        """Of a problem's group."""
        size = self.right.shape[1]
        return list(range(self.place[problem] * size, (self.place[problem] + 1) * size))

    def right_rows(self, problem: int) -> list[int]:
        """Those of them whose answers are right."""
        return [row for row in self.rows(problem) if bool(self.right.flatten()[row])]


def plain_ids(rows: Trajectories, row: int) -> list[int]:
    """Token ids of a row's prompt."""
    found: list[int] = rows.action[row][rows.attention[row] & ~rows.mask[row]].tolist()
    return found


def right_of(graded: Graded, size: int) -> Tensor:
    """``[P, G]`` bool of whole groups."""
    return (graded.scores.valid & (graded.scores.reward >= RIGHT)).view(-1, size)


def graded_of(graded: Graded, size: int) -> Tensor:
    """``[P]`` int64: answers with a grade."""
    return graded.scores.valid.view(-1, size).sum(1)


def note_wrong(problems: list[Problem], asked: Asked) -> None:
    """Note every problem's new wrong answers."""
    for index in asked.place:
        rows = [row for row in asked.rows(index) if bool(asked.graded.scores.valid[row]) and not bool(asked.right.flatten()[row])]
        texts = [asked.graded.completions[row] for row in rows]
        problems[index].wrong = list(dict.fromkeys([*problems[index].wrong, *filter(str.strip, texts)]))
