"""The process a grader runs in.

Jobs come in on standard input, answers go out on what was standard output; the grader's own prints go to standard error, so they cannot
spoil the conversation. A frame is a length (4 bytes, big-endian) and that many bytes: pickled jobs inward (only our own process writes
there), JSON outward. The process ends when its input does, and kills itself when a job runs far past its limit and nobody has killed it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import struct
import sys
from typing import Any, BinaryIO

from rheostat.credit.verifiers.conventions import Grader, as_function, name_of
from rheostat.credit.verifiers.interface import Grade
from rheostat.credit.verifiers.loading import describe, load_object
from rheostat.errors import RheostatError

ORPHAN_SECONDS = 10.0
"""How far past its limit a job may run before the process ends itself: its parent must be gone."""

_HEADER = struct.Struct(">I")


def write_frame(stream: BinaryIO, content: bytes) -> None:
    """Send one frame."""
    stream.write(_HEADER.pack(len(content)) + content)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame; None at the end of the stream."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (length,) = _HEADER.unpack(header)
    content = stream.read(length)
    return content if len(content) == length else None


def load_grader(target: str, options: dict[str, Any] | None, alone: bool) -> Grader:
    """The grader a target names; with options, the target is called with them to make it."""
    found = load_object(target)
    if options is not None:
        found = found(**options)
    return Grader(as_function(found), name_of(found), alone)


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Load the grader named by the first frame, then grade every frame that follows until there are no more."""

    def send(**message: Any) -> None:
        write_frame(answers, json.dumps(message).encode())

    first = read_frame(jobs)
    if first is None:
        return
    hello = pickle.loads(first)
    try:
        grader = load_grader(hello["target"], hello["options"], hello["alone"])
    except RheostatError as error:
        return send(kind="refused", message=str(error))
    except Exception as error:
        return send(kind="refused", message=f"The grader {hello['target']} cannot be made: {describe(error)}.")
    send(kind="ready", name=grader.name, batched=grader.batched, asynchronous=grader.asynchronous)
    while (frame := read_frame(jobs)) is not None:
        job = pickle.loads(frame)
        limit: float = job["limit"]
        told: set[int] = set()

        def report(row: int, grade: Grade, limit: float = limit, told: set[int] = told) -> None:
            send(kind="grades", rows=[row], grades=[vars(grade)])
            told.add(row)
            _arm(limit)

        _arm(limit)
        try:
            grades, metrics = grader.grade(job["rollouts"], job["progress"], report, limit)
            rest = [row for row in range(len(grades)) if row not in told]
            send(kind="grades", rows=rest, grades=[vars(grades[row]) for row in rest])
            send(kind="done", metrics=metrics)
        except RheostatError as error:
            send(kind="refused", message=str(error))
        faulthandler.cancel_dump_traceback_later()


def _arm(limit: float) -> None:
    faulthandler.dump_traceback_later(limit + ORPHAN_SECONDS, exit=True)


def main() -> None:
    """Take over the standard streams and serve."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        serve(jobs, answers)
