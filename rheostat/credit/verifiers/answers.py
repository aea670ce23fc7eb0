"""Where the final answer stands in a completion, and the grader that compares it with the reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rheostat.credit.verifiers.interface import Grade, Progress, Rollout, Scores
from rheostat.errors import unknown


def whole(completion: str) -> str:
    """All of it."""
    return completion.strip()


def last_line(completion: str) -> str | None:
    """The last line that is not blank."""
    lines = completion.strip().splitlines()
    return lines[-1].strip() if lines else None


def after_hash(completion: str) -> str | None:
    """What follows the last ``#`` (GSM8K's ``#### 42`` too)."""
    _, marker, answer = completion.rpartition("#")
    return answer.strip() if marker else None


def tagged(completion: str) -> str | None:
    """The last ``<answer> ... </answer>``."""
    found = re.findall(r"<answer>(.*?)</answer>", completion, re.DOTALL)
    return found[-1].strip() if found else None


def tagged_or_whole(completion: str) -> str:
    """The last ``<answer> ... </answer>`` where there is one, else all of it."""
    found = tagged(completion)
    return whole(completion) if found is None else found


def boxed(completion: str) -> str | None:
    r"""The content of the last ``\boxed{...}``, braces matched."""
    start = completion.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for position in range(start, len(completion)):
        depth += {"{": 1, "}": -1}.get(completion[position], 0)
        if depth == 0:
            return completion[start:position].strip()
    return None


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "whole": whole,
    "last-line": last_line,
    "hash": after_hash,
    "tag": tagged,
    "tag-or-whole": tagged_or_whole,
    "boxed": boxed,
}


def extractor(name: str) -> Callable[[str], str | None]:
    """How to find the answer, by name.

    Raises:
        RheostatError: unknown name.
    """
    if name not in EXTRACTORS:
        raise unknown("answer extractor", name, EXTRACTORS)
    return EXTRACTORS[name]


class ExactMatch:
    """1 where the extracted answer equals the reference answer, compared as stripped text; part ``answered``: whether there was one.

    Args:
        extract: name of the extractor.
    """

    def __init__(self, extract: str = "whole") -> None:
        self.name = "exact"
        self._extract = extractor(extract)

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade; a rollout without a reference answer is invalid."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    def _grade(self, rollout: Rollout) -> Grade:
        if rollout.answer is None:
            return Grade.failure("the prompt has no answer to compare with")
        found = self._extract(rollout.completion)
        right = found is not None and found == str(rollout.answer).strip()
        return Grade(float(right), {"answered": float(found is not None)}, {"answer": found or ""})
