"""The process that reads a completion: it gives up what it does not need, grades, and ends."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from typing import Any

from rheostat.credit.verifiers.sandbox import wire

OUT = 3
"""The one descriptor, in addition to the standard ones, that stays open."""
DESCRIPTORS = 64
THREADS = 256


def become_child(handler: Any, job: dict[str, Any], pipe: int, hello: dict[str, Any], memory: int) -> None:
    """Give up rights, run the job, end the process. Never returns.

    Args:
        handler: what the parent loaded.
        job: what to do; with ``probe``, to measure the sandbox instead.
        pipe: where frames go.
        hello: of the grading process.
        memory: bytes of address space; 0 for no limit.
    """
    os.setsid()  # a group of its own, so that all of it can be killed
    if pipe != OUT:
        os.dup2(pipe, OUT)
    os.closerange(OUT + 1, min(os.sysconf("SC_OPEN_MAX"), 1 << 16))
    if sys.platform == "linux":
        from rheostat.credit.verifiers.sandbox.kernel import die_with_parent

        die_with_parent()
    becomes_program = bool(getattr(handler, "becomes_program", False))
    if becomes_program and "probe" not in job:
        handler.prepare(job)
    _limit(job, hello, memory, becomes_program)
    if hello["level"] in ("kernel", "namespaces"):
        from rheostat.credit.verifiers.sandbox.seccomp import restrict

        restrict(becomes_program)

    def send(kind: int, row: int = 0, content: bytes = b"") -> None:
        wire.write_all(OUT, wire.frame(kind, row, content))

    if "probe" in job:
        from rheostat.credit.verifiers.sandbox.worker.probe import attempt_all

        send(wire.RECORD, 0, attempt_all(job["probe"]))
        send(wire.DONE)
    else:
        handler.run(job, send)
    os._exit(0)


def _limit(job: dict[str, Any], hello: dict[str, Any], memory: int, becomes_program: bool) -> None:
    """Limits of time, files and memory. Node reserves far more addresses than it uses, so what counts of it is the memory it can write."""
    seconds = math.ceil((job["limit"] + job["grace"]) * (job["count"] if job["ordered"] else 1)) + 1
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: seconds}
    if not {"files", "programs", "network"} & set(hello["needs"]):
        limits |= {resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: DESCRIPTORS}
    if hello["level"] == "namespaces":  # counts the threads of this namespace only (Linux 5.14); root is exempt
        limits[resource.RLIMIT_NPROC] = THREADS
    if memory and "programs" not in hello["needs"]:
        limits[resource.RLIMIT_DATA if becomes_program else resource.RLIMIT_AS] = memory
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # a lower limit is set already, or this system has none: the measurement tells
            resource.setrlimit(limit, (value, value))
