"""A verifier that gets only answers inside its grammar."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rheostat.credit.verifiers.sandbox.grammar import Grammar
from rheostat.credit.verifiers.sandbox.levels import Standing, standings_of
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier, grades_of

SHOWN = 400
"""Characters of a refused answer that its note keeps."""


class Guarded:
    """Grades answers inside a grammar with another verifier; other answers earn 0 (part ``mark``, note ``refused``) and never reach it.

    Args:
        verifier: grades the rest.
        grammar: of a right answer.
        extract: finds the answer in a completion; a completion without one goes to the verifier.
    """

    def __init__(self, verifier: Verifier, grammar: Grammar, extract: Callable[[str], str | None]) -> None:
        self.name, self.verifier, self.grammar, self._extract = verifier.name, verifier, grammar, extract

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order."""
        grades = [refused(self.grammar, self._extract(rollout.completion)) for rollout in rollouts]
        admitted = [row for row, grade in enumerate(grades) if grade is None]
        if len(admitted) == len(rollouts):
            return self.verifier.score(rollouts, progress)
        scores = self.verifier.score([rollouts[row] for row in admitted], progress) if admitted else None
        if scores is not None:
            for row, found in zip(admitted, grades_of(scores), strict=True):
                grades[row] = found
        return Scores.from_grades([grade or Grade() for grade in grades], scores.metrics if scores is not None else {})

    def standings(self) -> list[Standing]:
        """The sandbox level of the other verifier."""
        return standings_of(self.verifier)

    def close(self) -> None:
        """Close the verifier, where it has something to close."""
        close = getattr(self.verifier, "close", None)
        if close is not None:
            close()


def refused(grammar: Grammar | None, answer: str | None) -> Grade | None:
    """The grade of an answer outside the grammar; None for one that may be graded."""
    objection = None if grammar is None or answer is None else grammar.objection(answer)
    if objection is None:
        return None
    return Grade(0.0, {"mark": 0.0}, {"answer": str(answer)[:SHOWN], "refused": objection})
