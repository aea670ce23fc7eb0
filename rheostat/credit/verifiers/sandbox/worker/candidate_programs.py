"""Candidate programs in a grading process. The expected outputs are not here: what a program returns is compared by the trainer."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rheostat.credit.verifiers.sandbox import values, wire

RETURNED, RAISED = b"r", b"e"
"""First byte of a record: an encoded value, or the text of what was raised, follows."""

COMMON: tuple[str, ...] = (
    "bisect",
    "cmath",
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
)
COMMON += ("itertools", "json", "math", "operator", "random", "re", "statistics", "string", "textwrap", "typing")


class ProgramHandler:
    """Runs candidate programs."""

    name, batched, asynchronous = "programs", False, False

    def __init__(self) -> None:
        for module in COMMON:  # imported once, not in every fork
            importlib.import_module(module)

    def run(self, job: dict[str, Any], send: Callable[..., None]) -> None:
        """Execute the program, call its entry point with each test's inputs, and send what it returns.

        Args:
            job: ``code``, ``entry_point`` and ``inputs``, encoded lists (positional) or dicts (by keyword).
            send: sends a frame.
        """
        names: dict[str, Any] = {"__name__": "candidate"}
        try:
            exec(compile(job["code"], "<candidate>", "exec"), names)
            function = names[job["entry_point"]]
        except BaseException as error:
            text = f"the program does not define {job['entry_point']}" if isinstance(error, KeyError) else _told(error)
            for row in range(len(job["inputs"])):
                send(wire.RECORD, row, RAISED + wire.short(text))
            send(wire.DONE)
            return
        for row, inputs in enumerate(job["inputs"]):
            send(wire.RECORD, row, self._call(function, values.decode(inputs)))
        send(wire.DONE)

    @staticmethod
    def _call(function: Any, inputs: Any) -> bytes:
        try:
            return RETURNED + values.encode(function(**inputs) if isinstance(inputs, dict) else function(*inputs))
        except BaseException as error:  # SystemExit too: it is the program's own
            return RAISED + wire.short(_told(error))


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:
        return "it raised what cannot be shown"
