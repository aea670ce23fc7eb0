"""Extractors of the final answer in a completion, and the grader that compares it with the reference."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import unknown


def whole(completion: str) -> str:
    """The whole completion."""
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


def boxed_number(completion: str) -> float | None:
    """The number in the last ``\\boxed{...}``, so that 1 and 1.0 are one; None without one, or where it is not finite."""
    found = boxed(completion)
    try:
        number = math.nan if found is None else float(found)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


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


NUMERAL = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?([eE][-+]?\d+)?")


class ExactMatch:
    """1 where the extracted answer equals a reference answer; part ``answered``: whether there was one.

    The extractor reads the reference, too: GSM8K's whole ``... #### 21`` stands for ``21``. It may be a list, of which each entry is
    accepted. Text is compared stripped, numerals without the commas of their thousands; a number (``52``, or ``52.0`` as tables write a
    column with gaps) equals every numeral of its value.

    Args:
        extract: name of the extractor.
    """

    def __init__(self, extract: str = "whole") -> None:
        self.name = "exact"
        self._extract, self._how = extractor(extract), extract

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade; a rollout without a reference answer is invalid."""
        return Scores.from_grades([self._grade(rollout) for rollout in rollouts])

    def _grade(self, rollout: Rollout) -> Grade:
        accepted = accepted_answers(rollout.answer)
        if not accepted:
            return Grade.failure("the prompt has no answer to compare with")
        found = self._extract(rollout.completion)
        right = found is not None and any(self._equal(found, answer) for answer in accepted)
        return Grade(float(right), {"answered": float(found is not None)}, {"answer": found or ""})

    def _equal(self, found: str, answer: Any) -> bool:
        if isinstance(answer, (int, float)) and not isinstance(answer, bool):
            value = numeral(found)
            return value is not None and value == answer
        return plain(found) == plain(self.reference(answer))

    def reference(self, answer: Any) -> str:
        """A reference answer as the text that completions are compared with."""
        text = str(answer)
        return (self._extract(text) or text).strip()

    def completion(self, answer: Any) -> str:
        """A possible end of a completion with this answer, to check that the reference itself would be graded as right."""
        if isinstance(answer, float) and answer.is_integer():
            answer = int(answer)
        text = self.reference(answer)
        shapes = {"hash": "#### {}", "tag": "<answer>{}</answer>", "tag-or-whole": "<answer>{}</answer>", "boxed": "\\boxed{{{}}}"}
        return shapes.get(self._how, "{}").format(text)


def accepted_answers(answer: Any) -> list[Any]:
    """The answers that a reference stands for: itself, or the entries of a list; gaps (None, NaN, empty text) are none."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    several = answer if isinstance(answer, (list, tuple, set)) else [answer]
    return [each for each in several if each is not None and each == each and str(each).strip()]


def numeral(text: str) -> float | None:
    """The value of a decimal numeral, which may have commas between its thousands; None for any other text."""
    text = text.strip().removeprefix("$")
    if not any(map(str.isdigit, text)) or not NUMERAL.fullmatch(text):
        return None
    value = float(text.replace(",", ""))
    return value if math.isfinite(value) else None


def plain(text: str) -> str:
    """Stripped text; a numeral without the commas of its thousands."""
    text = text.strip()
    return text.replace(",", "") if "," in text and numeral(text) is not None else text


def unusable(answer: Any) -> str:
    """Why no text could ever equal this reference; empty where some could."""
    if not accepted_answers(answer):
        return "is missing"
    if isinstance(answer, Mapping):
        return "is an object with keys, not an answer"
    return ""
