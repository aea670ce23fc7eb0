"""Signals that ask a run to stop set a flag, on which the run acts when its state is consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """While inside, SIGINT and SIGTERM raise a flag instead of killing; a second SIGINT interrupts at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield lambda: False
        return

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        if number == signal.SIGINT and len(caught) > 1:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
