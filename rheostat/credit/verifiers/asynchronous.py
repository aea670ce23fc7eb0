"""Async reward functions, run from code that is not async (and may itself run inside a loop, as in a notebook)."""

from __future__ import annotations

import asyncio
import functools
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rheostat.credit.verifiers.reward_loading import describe


class Raised:
    """The exception that the user's function raised."""

    def __init__(self, text: str) -> None:
        self.text = text


def is_async(function: Any) -> bool:
    """Whether calling it gives something to await."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class EventLoop:
    """An event loop on a thread of its own, kept for the grader's life: clients that async graders reuse are bound to their loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, awaitable: Awaitable[Any], limit: float | None) -> Any:
        """Run one to its end; its result, or the exception that it raised."""
        return asyncio.run_coroutine_threadsafe(_outcome(awaitable, limit), self._started()).result()

    def run_all(self, awaitables: Mapping[int, Awaitable[Any]], settle: Callable[[int, Any], None], limit: float | None) -> None:
        """Run together; ``settle`` is called with each key and outcome as it comes, in the caller's thread."""
        arrived: queue.Queue[tuple[int, Any]] = queue.Queue()

        async def one(key: int, awaitable: Awaitable[Any]) -> None:
            arrived.put((key, await _outcome(awaitable, limit)))

        loop = self._started()
        for key, awaitable in awaitables.items():
            asyncio.run_coroutine_threadsafe(one(key, awaitable), loop)
        for _ in awaitables:
            settle(*arrived.get())

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="async graders", daemon=True).start()
        return self._loop


async def _outcome(awaitable: Awaitable[Any], limit: float | None) -> Any:
    try:
        return await asyncio.wait_for(awaitable, limit)
    except TimeoutError:
        return Raised(f"it ran past its limit of {limit:g} s" if limit else "TimeoutError")
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        return Raised(describe(error))
