"""Reward functions in a grading process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rheostat.credit.verifiers.conventions import Grader, as_function, name_of
from rheostat.credit.verifiers.reward_loading import load_object
from rheostat.credit.verifiers.sandbox import wire
from rheostat.credit.verifiers.verifier_interface import Grade
from rheostat.errors import RheostatError


class GraderHandler:
    """Runs one reward function.

    Args:
        target: what :func:`load_object` finds.
        options: with options, the target is called with them to make the grader.
        alone: see :class:`Grader`.

    Raises:
        RheostatError: it cannot be loaded.
    """

    def __init__(self, target: str, options: dict[str, Any] | None, alone: bool) -> None:
        found = load_object(target)
        if options is not None:
            found = found(**options)
        self._grader = Grader(as_function(found), name_of(found), alone)
        self.name, self.batched, self.asynchronous = self._grader.name, self._grader.batched, self._grader.asynchronous
        warm = getattr(getattr(self._grader.function, "__self__", self._grader.function), "warm", None)
        if callable(warm):
            warm()  # the grader's late imports happen before the first fork

    def check(self, job: dict[str, Any]) -> str | None:
        """Why the job cannot be graded at all (a column that the prompts lack); None where it can."""
        try:
            self._grader.require_columns(job["rollouts"])
        except RheostatError as error:
            return str(error)
        return None

    def run(self, job: dict[str, Any], send: Callable[..., None]) -> None:
        """Grade; a frame for each row, one for the function's scalars, and the end."""
        told: set[int] = set()

        def report(row: int, grade: Grade) -> None:
            send(wire.RECORD, row, wire.encode_grade(grade))
            told.add(row)

        try:
            grades, metrics = self._grader.grade(job["rollouts"], job["progress"], report, job["limit"])
        except RheostatError as error:
            send(wire.REFUSED, 0, wire.short(str(error)))
            return
        for row, grade in enumerate(grades):
            if row not in told:
                report(row, grade)
        send(wire.METRICS, 0, wire.encode_numbers(metrics))
        send(wire.DONE)


class NothingHandler:
    """Grades nothing: to try a sandbox without a grader."""

    name, batched, asynchronous = "nothing", False, False
