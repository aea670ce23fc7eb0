"""Sides of benchmarks, run in a thread instead of a process of their own."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def answers(side: Callable[..., None], *arguments: Any, questions: list[Any], greeted: bool = True) -> list[Any]:
    """What a side answers to some questions; an error in it is raised here.

    Args:
        side: a function of a pipe and more.
        arguments: the more.
        questions: sent one by one; each is answered.
        greeted: whether the side says that it is ready first, and is told 0 at the end; others are told None.
    """
    here, there = multiprocessing.Pipe()
    failed: list[BaseException] = []
    thread = threading.Thread(target=_guarded, args=(side, there, arguments, failed), daemon=True)
    thread.start()
    found = []
    try:
        if greeted:
            here.recv()
        for question in questions:
            here.send(question)
            found.append(here.recv())
        if not questions:
            found.append(here.recv())
        here.send(0 if greeted else None)
    except (EOFError, OSError):  # it has ended by itself
        pass
    thread.join(60)
    if failed:
        raise failed[0]
    return found


def _guarded(side: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...], failed: list[BaseException]) -> None:
    try:
        side(pipe, *arguments)
    except BaseException as error:
        failed.append(error)
    finally:
        pipe.close()
