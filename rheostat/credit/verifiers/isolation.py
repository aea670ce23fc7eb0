"""Graders in sandboxed processes of their own with a time limit: one that hangs, exits or crashes costs its row, not the run.

What the sandbox stops and how that is measured: :mod:`rheostat.credit.verifiers.sandbox.levels`. The time limit works by killing a process,
so it holds for any code, needs no signals and works from any thread (math-verify's own limit uses SIGALRM, which fails off the main thread;
verl users saw every reward become 0 that way).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rheostat.credit.verifiers.sandbox import wire
from rheostat.credit.verifiers.sandbox.levels import Standing
from rheostat.credit.verifiers.sandbox.process import SERVER_GRACE, Answer, Grading, GradingProcess, jobs_of
from rheostat.credit.verifiers.sandbox.worker.graders import GraderHandler
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import RheostatError

ASYNC_GRACE = 1.0
"""Seconds an async grader, which is stopped from within its process, gets before the process is killed."""
DENIALS = ("PermissionError", "FileNotFoundError", "ModuleNotFoundError", "ConnectionError", "URLError", "Errno", "Operation not permitted")
"""Exceptions that a grader raises when the sandbox stops it."""


class Isolated:
    """A reward function in one or several processes of its own, as a :class:`Verifier`.

    A function that grades one sample is run in a fresh fork for each, so that no completion changes how another is graded. A function of a
    whole batch and an async one get the batch in one fork; if it hangs or crashes, every rollout is graded by itself (if ``alone``), so
    that only the guilty rows are invalid.

    Args:
        target: ``file.py:function`` or ``package.module:function``, which the process loads (see :func:`load_object`).
        options: with options, the target is called with them to make the grader. A method ``warm`` of it is called once after loading.
        timeout: seconds a sample, or the call for a whole batch, may take.
        workers: processes; a function of the whole batch uses one.
        name: shown in messages and as the part's name; None: the function's own name.
        alone: see :class:`Grader`.
        give_up_after: samples in a row that hang or crash before the rest of the batch is given up as invalid.
        start_timeout: seconds loading the target may take.
        sandbox: see :data:`~rheostat.credit.verifiers.sandbox.levels.CHOICES`.
        needs: what the grader opts out of, see :data:`~rheostat.credit.verifiers.sandbox.levels.NEEDS`.
        memory: MiB a call may take beyond what the loaded grader has; 0 for no limit.
        together: samples that share a fork; more than 1 only for text that cannot do harm, because a grammar admitted it.

    Raises:
        RheostatError: the target cannot be loaded, follows no convention or does not start in time, or the sandbox does not hold here.
    """

    def __init__(
        self,
        target: str,
        *,
        options: dict[str, Any] | None = None,
        timeout: float = 30.0,
        workers: int = 1,
        name: str | None = None,
        alone: bool = True,
        give_up_after: int = 8,
        start_timeout: float = 120.0,
        sandbox: str = "best",
        needs: Sequence[str] = (),
        memory: int = 1024,
        together: int = 1,
    ) -> None:
        if not (0 < timeout < math.inf and 0 < start_timeout < math.inf):
            raise RheostatError(
                f"The time limits of a grader are seconds above 0; got timeout={timeout:g}, start_timeout={start_timeout:g}."
            )
        if workers < 1 or give_up_after < 1 or together < 1:
            raise RheostatError(
                f"A grader needs at least one worker, one try and one sample; got workers={workers}, give_up_after={give_up_after}, "
                f"together={together}."
            )
        if memory < 0:
            raise RheostatError(f"The memory of a grader is a number of MiB, at least 0; got {memory}.")
        self.timeout, self.alone, self.give_up_after, self.together = timeout, alone, give_up_after, together
        file, _, function = target.rpartition(":")
        folder = None
        if file.endswith(".py"):  # restarted processes must find it, whatever the working directory is then
            path = Path(file).expanduser().resolve()
            target, folder = f"{path}:{function}", str(path.parent)
        handler = f"{GraderHandler.__module__}:{GraderHandler.__name__}"
        loaded = {"target": target, "options": options, "alone": alone}
        grading = Grading(target, handler, loaded, sandbox, tuple(needs), memory, start_timeout, folder)
        first = GradingProcess(grading)
        more = [GradingProcess(grading, first.standing.level) for _ in range(0 if first.batched else workers - 1)]
        self._workers = [first, *more]
        self._asynchronous, self._batched = first.asynchronous, first.batched
        self.name = name or first.name

    def standings(self) -> list[Standing]:
        """The level this grader runs at."""
        found = self._workers[0].standing
        return [Standing(self.name, found.level, found.needs, found.stopped, found.worked, found.refused)]

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order.

        Raises:
            RheostatError: the function asks for a missing column or, called with a whole batch, does not return a reward per completion.
        """
        grades: list[Grade | None] = [None] * len(rollouts)
        metrics: dict[str, float] = {}
        shares = [list(range(start, len(rollouts), len(self._workers))) for start in range(len(self._workers))]

        def run(worker: GradingProcess, rows: list[int]) -> None:
            self._grade(worker, rows, rollouts, progress, grades, metrics)

        if len(self._workers) == 1:
            run(self._workers[0], shares[0])
        else:
            with ThreadPoolExecutor(len(self._workers)) as pool:
                list(pool.map(run, self._workers, shares))
        return Scores.from_grades([grade or Grade.failure("not graded") for grade in grades], metrics)

    def close(self) -> None:
        """End the processes; the next ``score`` starts them again."""
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _grade(
        self,
        worker: GradingProcess,
        rows: list[int],
        rollouts: Sequence[Rollout],
        progress: Progress | None,
        grades: list[Grade | None],
        metrics: dict[str, float],
    ) -> None:
        whole = self._batched or self._asynchronous  # one call, or all calls at once
        one_by_one = not whole and worker.forked
        jobs: deque[list[int]] = deque(jobs_of(rows, self.together if one_by_one else max(1, len(rows))))
        why_alone = ""
        lost = 0
        while jobs:
            job = jobs.popleft()
            if lost >= self.give_up_after:
                for row in job:
                    grades[row] = Grade.failure(f"not graded, because the {lost} before it all hung or crashed the grader")
                continue
            trouble = self._run(worker, job, [rollouts[row] for row in job], progress, grades, metrics)
            for row in job:
                grade = grades[row]
                if grade is not None:
                    grade.message = grade.message or why_alone
                    lost = 0
            if not trouble:
                continue
            left = [row for row in job if grades[row] is None]
            if whole and len(job) > 1 and (self.alone or not self._batched):
                why_alone = f"graded by itself, because grading the batch together {trouble}"
                jobs.extend([row] for row in left)
            elif whole:
                for row in left:
                    grades[row] = Grade.failure(f"the grader {trouble}")
                lost += 1
            elif left:  # graded in order, so the first one without an answer is the guilty one
                grades[left[0]] = Grade.failure(f"the grader {trouble}")
                lost += 1
                if left[1:]:
                    jobs.appendleft(left[1:])

    def _run(
        self,
        worker: GradingProcess,
        job: list[int],
        rollouts: list[Rollout],
        progress: Progress | None,
        grades: list[Grade | None],
        metrics: dict[str, float],
    ) -> str:
        """Run one job and store its grades; returns what went wrong, or nothing."""
        whole = self._batched or self._asynchronous
        grace = ASYNC_GRACE if self._asynchronous else 0.0
        limits = {"limit": self.timeout, "grace": grace, "count": len(job), "ordered": not whole}
        trouble = worker.send({"rollouts": rollouts, "progress": progress, "check": True, **limits})
        if worker.forked:  # it watches the time limit itself, and answers when the job is over
            patience, grace = (self.timeout + grace) * (1 if whole else len(job)), SERVER_GRACE
        else:
            patience = self.timeout
        while not trouble:
            answer = worker.receive(patience, grace)
            if answer.kind == wire.RECORD and answer.row < len(job):
                grades[job[answer.row]] = self._read(answer, worker.standing.level)
            elif answer.kind == wire.METRICS:
                metrics |= _numbers(answer.content)
            elif answer.kind == wire.DONE:
                return ""
            elif answer.kind == wire.REFUSED and (answer.row or self._batched or not worker.forked):
                raise RheostatError(wire.text_of(answer.content))
            elif answer.kind == wire.REFUSED:  # a single sample's own process reported it, and a completion may have written that report
                grades[job[0]] = Grade.failure(wire.text_of(answer.content))
                return ""
            elif answer.kind == wire.DIED:
                return worker.last_words(wire.text_of(answer.content))
            elif answer.kind == wire.LATE:
                return f"ran past its limit of {self.timeout:g} s"
            elif answer.kind == wire.SPOILT:
                return "answered with what is no grade"
            else:
                trouble = answer.trouble or "answered with what is no grade"
        worker.stop()
        return trouble

    @staticmethod
    def _read(answer: Answer, level: str) -> Grade:
        try:
            grade = wire.decode_grade(answer.content)
        except wire.Garbled as error:
            return Grade.failure(f"the grader answered with what is no grade ({error})")
        if grade.failed and level in ("kernel", "namespaces") and any(sign in grade.message for sign in DENIALS):
            grade.message += (
                f" (in a sandbox of level {level} a grader reads no files but libraries and opens no connections: "
                "--reward-needs files, network or programs lets it)"
            )
        return grade


def _numbers(content: bytes) -> dict[str, float]:
    try:
        return wire.decode_numbers(content)
    except wire.Garbled:
        return {}
