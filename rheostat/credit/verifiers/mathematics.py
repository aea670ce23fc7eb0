"""Mathematical equality, graded by ``math-verify`` (extra ``math``).

Its own time limits are switched off (they use SIGALRM, which fails off the main thread) and its exceptions are let through: run it
isolated, as ``load_reward("math")`` does, and a comparison that hangs or fails is invalid instead of wrong.
"""

from __future__ import annotations

import logging
from typing import Any

from rheostat.credit.verifiers.answer_extraction import accepted_answers
from rheostat.errors import MissingExtra


class MathGrader:
    """1 where the completion's final expression equals the reference answer; verl's calling convention, one sample at a time.

    Args:
        boxed_only: accept only an answer in ``\\boxed{}`` (or other LaTeX delimiters), not a bare number in the text.

    Raises:
        MissingExtra: ``math-verify`` is not installed.
    """

    name = "math"

    def __init__(self, boxed_only: bool = False) -> None:
        try:
            import math_verify
        except ImportError as error:
            raise MissingExtra("math-verify", "math", "Grading mathematical answers") from error
        for part in ("parser", "grader"):  # they warn that their time limits are switched off
            logging.getLogger(f"math_verify.{part}").setLevel(logging.ERROR)
        self._library = math_verify
        latex = math_verify.LatexExtractionConfig(boxed_match_priority=0)
        self._accepted = (latex,) if boxed_only else (latex, math_verify.ExprExtractionConfig())

    def warm(self) -> None:
        """Grade a known pair, so that the library's late imports are loaded before any completion is graded."""
        self(r"\boxed{x^2 + \frac{1}{2}}", r"\frac{1}{2} + x^2")

    def __call__(self, solution_str: str, ground_truth: Any) -> dict[str, Any]:
        """Grade one completion.

        Raises:
            ValueError: the reference answer is missing or no mathematics.
        """
        accepted = [self.parse_reference(each) for each in accepted_answers(ground_truth)]
        if not accepted:
            raise ValueError("the prompt has no answer to compare with")
        found = self._library.parse(solution_str, extraction_config=self._accepted, parsing_timeout=None, raise_on_error=True)
        right = bool(found) and any(self._library.verify(gold, found, timeout_seconds=None, raise_on_error=True) for gold in accepted)
        return {"score": float(right), "answered": float(bool(found)), "answer": str(found[-1]) if found else ""}

    def parse_reference(self, ground_truth: Any) -> list[Any]:
        """The reference answer as expressions: what follows GSM8K's ``####`` if it has one; LaTeX without delimiters is taken as boxed."""
        text = str(ground_truth).rpartition("####")[2].strip()
        text = text if "$" in text or r"\boxed" in text else rf"\boxed{{{text}}}"
        parsed = self._library.parse(text, parsing_timeout=None, raise_on_error=True)
        if not parsed:
            raise ValueError(f"the reference answer {ground_truth!r} is no mathematics")
        return list(parsed)
