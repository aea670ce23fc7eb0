"""Code graders: is a program that a model wrote right?

A problem is a row of prompts with two more columns::

    {"prompt": "Write add(a, b).", "entry_point": "add",
     "tests": [{"inputs": [1, 2], "output": 3}, {"inputs": {"a": 0, "b": 5}, "output": 5}]}

``inputs`` are positional (a list) or by name (an object). Every value is plain: numbers, text, lists, objects, null, true, false.

The program runs in a sandboxed process of its own that knows the inputs and nothing else. Its results leave the process as bytes and are
compared *here*: the expected outputs never share a process with it, and an object that claims to equal everything cannot be encoded.
A program can forge any answer; it earns the reward only with the right one. A program that raises, hangs, exits or crashes
is wrong, not invalid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from rheostat.credit.verifiers.fences import program_in
from rheostat.credit.verifiers.sandbox import values, wire
from rheostat.credit.verifiers.sandbox.levels import Standing
from rheostat.credit.verifiers.sandbox.process import SERVER_GRACE, Grading, GradingProcess
from rheostat.credit.verifiers.sandbox.worker.candidate_programs import RETURNED, ProgramHandler
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import RheostatError

LONGEST_PROGRAM = 100_000
Credit = Literal["all", "share"]


@dataclass(frozen=True)
class Test:
    """One call of the entry point and what it must return."""

    __test__ = False  # not one of pytest's

    inputs: list[Any] | dict[str, Any]
    output: Any


@dataclass(frozen=True)
class Problem:
    """The entry point of a program and its tests."""

    entry_point: str
    tests: tuple[Test, ...]

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Problem:
        """The problem of a prompt's row.

        Raises:
            RheostatError: a column is missing or has another form.
        """
        entry_point, tests = columns.get("entry_point"), columns.get("tests")
        if not isinstance(entry_point, str) or not entry_point.isidentifier():
            raise RheostatError("The prompt has no entry_point, the name of the function that its tests call: add the column.")
        if not isinstance(tests, (list, tuple)) or not tests:
            raise RheostatError('The prompt has no tests: add the column, a list of {"inputs": [...], "output": ...}.')
        found = []
        for number, test in enumerate(tests):
            if not isinstance(test, Mapping) or "output" not in test or not isinstance(test.get("inputs"), (list, tuple, Mapping)):
                raise RheostatError(f'Test {number} of the prompt is not of the form {{"inputs": [...], "output": ...}}.')
            inputs = test["inputs"]
            found.append(Test(dict(inputs) if isinstance(inputs, Mapping) else list(inputs), test["output"]))
        return cls(entry_point, tuple(found))


@dataclass(frozen=True)
class Outcome:
    """The results of a program on the tests, one entry for each."""

    passed: tuple[bool, ...]
    errors: tuple[str, ...]
    """Why a test did not pass; empty where it did."""


def credit_of(passed: Sequence[bool], credit: Credit = "all") -> float:
    """What a program earns: 1 where all its tests pass, or the share that passes; 0 where there is no test."""
    if not passed:
        return 0.0
    return sum(passed) / len(passed) if credit == "share" else float(all(passed))


class ProgramTests:
    """Grades programs by tests: 1 where all pass (or the share that pass); part ``passed``: that share; note ``error``: the first failure.

    Args:
        credit: ``all`` or ``share``.
        timeout: seconds a single call may take.
        workers: processes that run programs at the same time.
        memory: MiB a program may take.
        sandbox: see :mod:`rheostat.credit.verifiers.sandbox.levels`; not ``off``.
        tolerance: relative and absolute, for floats.

    Raises:
        RheostatError: an impossible limit, or no such sandbox holds here.
    """

    notes_answer = False
    """A program is no answer that could be told."""

    name = "programs"

    def __init__(
        self,
        credit: Credit = "all",
        *,
        timeout: float = 5.0,
        workers: int = 1,
        memory: int = 1024,
        sandbox: str = "best",
        tolerance: float = 1e-9,
    ) -> None:
        if credit not in ("all", "share"):
            raise RheostatError(f"The credit of a program is 'all' or 'share', not {credit!r}.")
        if not 0 < timeout < math.inf or workers < 1 or memory < 1 or not 0 <= tolerance < math.inf:
            raise RheostatError(
                "Programs need a time limit and a memory limit above 0, at least one worker and a tolerance of at least 0; "
                f"got timeout={timeout:g}, memory={memory}, workers={workers}, tolerance={tolerance:g}."
            )
        if sandbox == "off":
            raise RheostatError("Programs that a model wrote are not run without a sandbox: take --sandbox best, or process.")
        self.credit, self.timeout, self.tolerance = credit, timeout, tolerance
        handler = f"{ProgramHandler.__module__}:{ProgramHandler.__name__}"
        grading = Grading("programs", handler, {}, sandbox, memory=memory)
        first = GradingProcess(grading)
        self._workers = [first, *(GradingProcess(grading, first.standing.level) for _ in range(workers - 1))]

    def standings(self) -> list[Standing]:
        """The level programs run at."""
        return [self._workers[0].standing]

    def require(self, rows: Sequence[tuple[str, Rollout]]) -> None:
        """Refuse prompts that have no problem, before anything is sampled.

        Args:
            rows: every prompt with its place.

        Raises:
            RheostatError: naming the first such row and what it lacks.
        """
        for where, rollout in rows:
            try:
                Problem.from_columns(rollout.columns)
            except RheostatError as error:
                raise RheostatError(f"{where}: {error}") from error

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order; a row whose problem has not the form above is invalid."""
        grades: list[Grade] = [Grade()] * len(rollouts)

        def run(number: int) -> None:
            for row in range(number, len(rollouts), len(self._workers)):
                grades[row] = self._grade(self._workers[number], rollouts[row])

        with ThreadPoolExecutor(len(self._workers)) as pool:
            list(pool.map(run, range(len(self._workers))))
        return Scores.from_grades(grades)

    def run(self, program: str, problem: Problem) -> Outcome:
        """Run one program on a problem's tests."""
        return self._run(self._workers[0], program, problem)

    def close(self) -> None:
        """End the processes; the next ``score`` starts them again."""
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> ProgramTests:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _grade(self, worker: GradingProcess, rollout: Rollout) -> Grade:
        try:
            problem = Problem.from_columns(rollout.columns)
            outcome = self._run(worker, program_in(rollout.completion), problem)
        except RheostatError as error:
            return Grade.failure(str(error))
        share = sum(outcome.passed) / len(outcome.passed)
        first = next((f"test {number}: {text}" for number, text in enumerate(outcome.errors) if text), None)
        notes = {} if first is None else {"error": first}
        return Grade(credit_of(outcome.passed, self.credit), {"passed": share}, notes)

    def _run(self, worker: GradingProcess, program: str, problem: Problem) -> Outcome:
        count = len(problem.tests)
        if len(program) > LONGEST_PROGRAM:
            return Outcome((False,) * count, (f"the program is longer than {LONGEST_PROGRAM} characters",) * count)
        try:
            inputs = [values.encode(test.inputs) for test in problem.tests]
        except ValueError as error:
            raise RheostatError(f"The inputs of a test are {error}: keep plain values in them.") from error
        code = program.encode("utf-8", "replace").decode()
        job = {"code": code, "entry_point": problem.entry_point, "inputs": inputs}
        trouble = worker.send({**job, "limit": self.timeout, "grace": 0.0, "count": count, "ordered": True})
        returned: dict[int, bytes] = {}
        while not trouble:
            answer = worker.receive(self.timeout * count, SERVER_GRACE)
            if answer.kind == wire.RECORD and answer.row < count:
                returned[answer.row] = answer.content
            elif answer.kind == wire.DONE:
                break
            elif answer.kind == wire.LATE:
                trouble = f"ran past its limit of {self.timeout:g} s"
            elif answer.kind == wire.DIED:
                trouble = wire.text_of(answer.content)
            elif answer.kind == wire.SPOILT:
                trouble = "answered with what is no value"
            else:  # the process itself is lost
                trouble = answer.trouble or "answered with what is no value"
                worker.stop()
        verdicts = [self._verdict(test, returned.get(row), trouble) for row, test in enumerate(problem.tests)]
        return Outcome(tuple(not text for text in verdicts), tuple(verdicts))

    def _verdict(self, test: Test, content: bytes | None, trouble: str) -> str:
        """Why a test did not pass; empty where it did."""
        if content is None:
            return f"the program {trouble or 'did not answer'}"
        if content[:1] != RETURNED:
            return wire.text_of(content[1:]) or "it raised"
        try:
            found = values.decode(content[1:])
        except wire.Garbled as error:
            return f"the program returned {error}"
        return "" if values.same(found, test.output, self.tolerance) else "the output is not the expected one"
