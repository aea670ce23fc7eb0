"""The measurement of a sandbox: a job that tries what the sandbox should stop and reports what worked."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rheostat.credit.verifiers.sandbox.levels import ATTEMPTS

MASK = struct.Struct(">HH")
"""Attempts that were made, and those that worked, as bits in the order of ``ATTEMPTS``."""


NEEDED = {"connect": "port", "memory": "memory"}
"""Attempt -> what must be given for it to be made."""


def attempt_all(given: dict[str, Any]) -> bytes:
    """Try everything; the outcome as bits.

    Args:
        given: ``file`` to read, ``drop`` to write, ``port`` to connect to (None: not tried), ``variable`` to see, ``pid`` to signal and
            look into, ``memory`` in bytes to take (None: not tried).
    """
    actions: dict[str, Callable[[], object]] = {
        "read": lambda: Path(given["file"]).read_bytes(),
        "write": lambda: Path(given["drop"]).touch(),
        "connect": lambda: socket.create_connection(("127.0.0.1", given["port"]), 1).close(),
        "variable": lambda: os.environ[given["variable"]],
        "proc": lambda: Path(f"/proc/{given['pid']}/environ").read_bytes(),
        "fork": _fork,
        "signal": lambda: os.kill(given["pid"], 0),
        "memory": lambda: bytearray(given["memory"]),
    }
    tried = worked = 0
    for bit, name in enumerate(ATTEMPTS):
        if given[NEEDED.get(name, "pid")] is None:
            continue
        tried |= 1 << bit
        with contextlib.suppress(BaseException):
            actions[name]()
            worked |= 1 << bit
    return MASK.pack(tried, worked)


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def read_mask(content: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The attempts that were stopped, and those that worked."""
    tried, worked = MASK.unpack(content)
    names = [name for bit, name in enumerate(ATTEMPTS) if tried & 1 << bit]
    passed = {name for bit, name in enumerate(ATTEMPTS) if worked & 1 << bit}
    return tuple(name for name in names if name not in passed), tuple(name for name in names if name in passed)
