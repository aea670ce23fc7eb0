"""Graders in processes of their own, with a time limit: one that hangs, exits or crashes costs its row, not the run.

The limit works by killing the process, so it holds for any code, needs no signals and works from any thread (math-verify's own limit uses
SIGALRM, which fails off the main thread; verl users saw every reward become 0 that way).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from rheostat.credit.verifiers.interface import Grade, Progress, Rollout, Scores
from rheostat.credit.verifiers.worker import read_frame, write_frame
from rheostat.errors import RheostatError

ASYNC_GRACE = 1.0
"""Seconds an async grader, which is stopped from within its process, gets before the process is killed."""

_log = logging.getLogger(__name__)


class Isolated:
    """A reward function in one or several processes of its own, as a :class:`Verifier`.

    Functions that grade one sample are watched sample by sample; functions of a whole batch get the batch, and where that call hangs or
    crashes, every rollout by itself (if ``alone``), so that only the guilty rows are invalid.

    Args:
        target: ``file.py:function`` or ``package.module:function``, which the process loads (see :func:`load_object`).
        options: with options, the target is called with them to make the grader.
        timeout: seconds a sample, or the call for a whole batch, may take.
        workers: processes; a function of the whole batch uses one.
        name: shown in messages and as the part's name; None: the function's own name.
        alone: see :class:`Grader`.
        give_up_after: samples in a row that hang or crash before the rest of the batch is given up as invalid.
        start_timeout: seconds loading the target may take.

    Raises:
        RheostatError: the target cannot be loaded, follows no convention, or does not start in time.
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
    ) -> None:
        if timeout <= 0 or start_timeout <= 0:
            raise RheostatError(
                f"The time limits of a grader are seconds above 0; got timeout={timeout:g}, start_timeout={start_timeout:g}."
            )
        if workers < 1 or give_up_after < 1:
            raise RheostatError(f"A grader needs at least one worker and one try; got workers={workers}, give_up_after={give_up_after}.")
        self.timeout, self.alone, self.give_up_after = timeout, alone, give_up_after
        file, _, function = target.rpartition(":")
        if file.endswith(".py"):  # restarted processes must find it wherever we are by then
            target = f"{Path(file).expanduser().resolve()}:{function}"
        hello = {"target": target, "options": options, "alone": alone}
        first = _Worker(hello, start_timeout)
        first.start()
        self._workers = [first] + [_Worker(hello, start_timeout) for _ in range(0 if first.batched else workers - 1)]
        self.name = name or first.name

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order.

        Raises:
            RheostatError: the function asks for a missing column or returns something that is not one reward per completion.
        """
        grades: list[Grade | None] = [None] * len(rollouts)
        metrics: dict[str, float] = {}
        shares = [list(range(start, len(rollouts), len(self._workers))) for start in range(len(self._workers))]

        def run(worker: _Worker, rows: list[int]) -> None:
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
        worker: _Worker,
        rows: list[int],
        rollouts: Sequence[Rollout],
        progress: Progress | None,
        grades: list[Grade | None],
        metrics: dict[str, float],
    ) -> None:
        jobs: deque[list[int]] = deque([rows] if rows else [])
        why_alone = ""
        lost = 0
        while jobs:
            job = jobs.popleft()
            if lost >= self.give_up_after:
                for row in job:
                    grades[row] = Grade.failure(f"not graded, because the {lost} before it all hung or crashed the grader")
                continue
            trouble = worker.send([rollouts[row] for row in job], progress, self.timeout)
            grace = ASYNC_GRACE if worker.asynchronous else 0.0
            while not trouble:
                answer = worker.receive(self.timeout, grace)
                if answer["kind"] == "grades":
                    for place, content in zip(answer["rows"], answer["grades"], strict=True):
                        grades[job[place]] = grade = Grade(**content)
                        grade.message = grade.message or why_alone
                        lost = 0
                elif answer["kind"] == "done":
                    metrics |= answer["metrics"]
                    break
                elif answer["kind"] == "refused":
                    raise RheostatError(answer["message"])
                else:
                    trouble = answer["message"]
            if not trouble:
                continue
            worker.stop()
            left = [row for row in job if grades[row] is None]
            together = worker.batched or worker.asynchronous
            if together and len(job) > 1 and (self.alone or not worker.batched):
                why_alone = f"graded by itself, because grading the batch together {trouble}"
                jobs.extend([row] for row in left)
            elif together:
                for row in left:
                    grades[row] = Grade.failure(f"the grader {trouble}")
                lost += 1
            elif left:  # graded in order, so the first one without an answer is the guilty one
                grades[left[0]] = Grade.failure(f"the grader {trouble}")
                lost += 1
                if left[1:]:
                    jobs.appendleft(left[1:])


class _Worker:
    """One grading process and the conversation with it."""

    def __init__(self, hello: dict[str, Any], start_timeout: float) -> None:
        self.hello, self.start_timeout = hello, start_timeout
        self.name, self.batched, self.asynchronous = "", False, False
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._said: deque[str] = deque(maxlen=5)
        self._overhearing: threading.Thread | None = None

    def start(self) -> None:
        """Start the process and load the grader in it.

        Raises:
            RheostatError: the grader cannot be loaded.
        """
        environment = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(place or os.getcwd() for place in sys.path)  # what we can import, it can
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from rheostat.credit.verifiers.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a group of its own: an interrupt at the keyboard is ours to handle, and its children die with it
        )
        weakref.finalize(self, _kill, self._process)
        self._answers, self._said = queue.Queue(), deque(maxlen=5)
        threading.Thread(target=_hear, args=(self._process.stdout, self._answers), daemon=True).start()
        self._overhearing = threading.Thread(target=_overhear, args=(self._process.stderr, self._said), daemon=True)
        self._overhearing.start()
        if not self._write(self.hello):
            raise RheostatError(f"The grading process for {self.hello['target']} does not start: {self._death()}.")
        answer = self.receive(self.start_timeout)
        if answer["kind"] == "ready":
            self.name, self.batched, self.asynchronous = answer["name"], answer["batched"], answer["asynchronous"]
            return
        self.stop()
        message = answer["message"]
        raise RheostatError(message if answer["kind"] == "refused" else f"Loading the grader {self.hello['target']} {message}.")

    def send(self, rollouts: list[Rollout], progress: Progress | None, limit: float) -> str:
        """Hand over a job, starting the process if need be; what went wrong, or nothing."""
        if self._process is None:
            self.start()
        return "" if self._write({"rollouts": rollouts, "progress": progress, "limit": limit}) else self._death()

    def receive(self, limit: float, grace: float = 0.0) -> dict[str, Any]:
        """The next answer; ``kind`` is ``trouble`` when none came in time or the process is gone."""
        try:
            answer = self._answers.get(timeout=limit + grace)
        except queue.Empty:
            return {"kind": "trouble", "message": f"ran past its limit of {limit:g} s"}
        return answer if answer is not None else {"kind": "trouble", "message": self._death()}

    def stop(self) -> None:
        """Kill the process and whatever it started."""
        if self._process is not None:
            _kill(self._process)
            self._process = None

    def _write(self, message: dict[str, Any]) -> bool:
        assert self._process is not None and self._process.stdin is not None
        try:
            write_frame(self._process.stdin, pickle.dumps(message))  # type: ignore[arg-type]
        except (BrokenPipeError, OSError):
            return False
        except Exception as error:
            raise RheostatError(
                f"The prompts' columns cannot be sent to the grading process ({error}): keep plain values in them."
            ) from error
        return True

    def _death(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if self._overhearing is not None:
            self._overhearing.join(timeout=0.5)  # for its last words; a child may hold the stream open, so not for ever
        how = f"ended its process with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"crashed its process ({signal.Signals(-code).name})"
        last = self._said[-1].strip() if self._said else ""
        return f"{how}; its last words: {last[:200]}" if last else how


def _hear(stream: IO[bytes], answers: queue.Queue[dict[str, Any] | None]) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        while (frame := read_frame(stream)) is not None:  # type: ignore[arg-type]
            answers.put(json.loads(frame))
    answers.put(None)


def _overhear(stream: IO[bytes], said: deque[str]) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            said.append(text)
            _log.info("grader: %s", text)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:  # gone: its number may be another's by now
        return
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
