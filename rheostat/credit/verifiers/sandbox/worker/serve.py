"""The grading process: it shuts itself in, loads the grader once, and forks for every job.

Jobs come in on standard input, answers go out on what was standard output (see :mod:`...sandbox.wire`). The process never evaluates a
completion; its children do, and it accepts only frames of the right form from a child. What is loaded is trusted: at the level
``kernel`` the sandbox closes after loading. The process ends when its input does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import pickle
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rheostat.credit.verifiers.reward_loading import describe
from rheostat.credit.verifiers.sandbox import wire
from rheostat.credit.verifiers.sandbox.worker.child import become_child
from rheostat.errors import RheostatError

ORPHAN_SECONDS = 10.0
"""How far past its limit a job that is not forked may run before the process ends itself: its parent must be gone."""
MOST = 64 << 20
"""Bytes that all answers of one job may have."""
LINUX = sys.platform == "linux"


def read_job(descriptor: int) -> Any:
    """The next job; None at the end of the stream."""
    head = _read(descriptor, wire.JOB.size)
    content = None if head is None else _read(descriptor, wire.JOB.unpack(head)[0])
    return None if content is None else pickle.loads(content)


def _read(descriptor: int, count: int) -> bytes | None:
    pieces = []
    while count:
        piece = os.read(descriptor, min(count, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


class Server:
    """One grading process.

    Args:
        jobs, answers: descriptors.
        hello: level, memory (bytes), forked, libraries, loadable, handler, options.
    """

    def __init__(self, jobs: int, answers: int, hello: dict[str, Any]) -> None:
        self._jobs, self._answers, self.hello = jobs, answers, hello
        self._walled = hello["level"] in ("kernel", "namespaces")
        self._size = -1
        self._handler: Any = None

    def start(self) -> bool:
        """Enter the sandbox and load; returns, and answers, whether that succeeded."""
        hello = self.hello
        try:
            if self._walled:
                from rheostat.credit.verifiers.sandbox import kernel, seccomp

                seccomp.program(os.uname().machine, 1)  # refuse a machine without a table now
            if hello["level"] == "namespaces":
                temporary = kernel.enter_namespaces(hello["libraries"], hello["loadable"], self._watch_size)
                os.environ["HOME"] = os.environ["TMPDIR"] = "/scratch"
            else:
                self._watch_size()
        except OSError as error:
            self._send(wire.DIED, content=wire.short(f"does not start ({error})"))
            return False
        try:
            module, _, name = hello["handler"].partition(":")
            self._handler = getattr(importlib.import_module(module), name)(**hello["options"])
        except RheostatError as error:
            self._send(wire.REFUSED, content=wire.short(str(error)))
            return False
        except Exception as error:
            self._send(wire.REFUSED, content=wire.short(f"The grader {hello['target']} cannot be made: {describe(error)}."))
            return False
        try:
            if hello["level"] == "namespaces":
                kernel.close_namespaces(temporary)
            if self._walled:
                kernel.no_new_privileges()
                if hello["level"] == "kernel" or kernel.landlock_version():
                    kernel.landlock(hello["libraries"], hello["listable"])
            elif LINUX and hello["forked"]:
                from rheostat.credit.verifiers.sandbox import kernel

                kernel.no_new_privileges()
                kernel.adopt_orphans()
        except OSError as error:
            self._send(wire.DIED, content=wire.short(f"does not start ({error})"))
            return False
        gc.collect()
        gc.freeze()  # a child's collections would otherwise copy every page
        flags = (1 if self._handler.batched else 0) | (2 if self._handler.asynchronous else 0)
        self._send(wire.READY, flags, wire.short(self._handler.name))
        return True

    def serve(self) -> None:
        """Answer jobs until there are no more."""
        while True:
            try:
                job = read_job(self._jobs)
            except Exception as error:  # columns of a class that cannot be imported here
                self._send(wire.REFUSED, 1, wire.short(f"The prompts' columns cannot be read by the grader: {describe(error)}."))
                continue
            if job is None:
                return
            if "check" in job and (message := self._handler.check(job)):
                self._send(wire.REFUSED, 1, wire.short(message))
            elif self.hello["forked"]:
                self._apart(job)
            else:
                self._here(job)

    def _here(self, job: dict[str, Any]) -> None:
        """Without a fork: the trainer watches the time, and kills this process where it runs out."""
        limit = job["limit"] + ORPHAN_SECONDS

        def send(kind: int, row: int = 0, content: bytes = b"") -> None:
            self._send(kind, row, content)
            faulthandler.dump_traceback_later(limit, exit=True)

        faulthandler.dump_traceback_later(limit, exit=True)
        self._handler.run(job, send)
        faulthandler.cancel_dump_traceback_later()

    def _apart(self, job: dict[str, Any]) -> None:
        """In a child that is gone, with all it started, before the answer is given."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                become_child(self._handler, job, writing, self.hello, self._memory())
            finally:
                os._exit(70)
        os.close(writing)
        answer, ending = self._listen(reading, job)
        os.close(reading)
        status = self._bury(pid, patience=0.1 if ending == wire.DIED else 0.0)
        if ending == wire.DIED:
            late = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
            answer += wire.frame(wire.LATE) if late else wire.frame(wire.DIED, 0, wire.short(_how_it_ended(status)))
        elif ending != wire.DONE:
            answer += wire.frame(ending)
        wire.write_all(self._answers, answer)

    def _listen(self, reading: int, job: dict[str, Any]) -> tuple[bytes, int]:
        """The child's frames, checked, and how they ended: DONE, DIED, LATE or SPOILT."""
        frames = wire.Frames(job["count"], wire.FROM_CHILD)
        answer, seen = b"", 0
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        poll.register(self._jobs, 0)  # only its end
        deadline = time.monotonic() + job["limit"] + job["grace"]
        while True:
            events = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if self._jobs in events:
                os._exit(0)  # the trainer is gone; the child receives its death signal
            if reading not in events:
                return answer, wire.LATE
            piece = os.read(reading, 1 << 16)
            seen += len(piece)
            if not piece:
                return answer, wire.SPOILT if frames.partial else wire.DIED
            try:
                found = frames.feed(piece)
            except wire.Garbled:
                return b"", wire.SPOILT
            if seen > MOST:
                return b"", wire.SPOILT
            for kind, row, content in found:
                answer += wire.frame(kind, row if kind == wire.RECORD else 0, content)  # only this process sends a refusal with row 1
                if kind in (wire.DONE, wire.REFUSED):
                    return answer, wire.DONE
                if kind == wire.RECORD and job["ordered"]:
                    deadline = time.monotonic() + job["limit"] + job["grace"]

    def _bury(self, pid: int, patience: float) -> int | None:
        """End the child and every process it started; returns its wait status if it ended by itself within so many seconds."""
        end, status = time.monotonic() + patience, None
        while True:
            done, found = os.waitpid(pid, os.WNOHANG)
            if done:
                status = found
            if done or time.monotonic() >= end:
                break
            time.sleep(0.001)
        if os.getpid() == 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for _ in range(1000):
            try:
                if os.waitpid(-1, os.WNOHANG)[0]:
                    continue
            except ChildProcessError:
                return status
            for orphan in _children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(orphan, signal.SIGKILL)
            time.sleep(0.001)
        return status

    def _send(self, kind: int, row: int = 0, content: bytes = b"") -> None:
        wire.write_all(self._answers, wire.frame(kind, row, content))

    def _watch_size(self) -> None:
        with contextlib.suppress(OSError):
            self._size = os.open("/proc/self/statm", os.O_RDONLY)

    def _memory(self) -> int:
        """Address space a child may have, in bytes; 0 for no limit."""
        if not self.hello["memory"]:
            return 0
        if self._size >= 0:
            used = int(os.pread(self._size, 100, 0).split()[0]) * resource.getpagesize()
        else:
            used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) + (256 << 20)
        return used + int(self.hello["memory"])


def _children() -> list[int]:
    """The processes that this one would have to wait for, where the system tells."""
    with contextlib.suppress(OSError, ValueError):
        return [int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return []


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "closed its connection"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended its process with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"crashed its process ({signal.Signals(-code).name})"
    return f"crashed its process (signal {-code})"


def main() -> None:
    """Take over the standard streams and serve."""
    jobs, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        hello = read_job(jobs)
        if hello is not None:
            server = Server(jobs, answers, hello)
            if server.start():
                server.serve()
