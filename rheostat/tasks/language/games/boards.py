"""Cells of a rectangle and the four ways to leave them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Cell = tuple[int, int]
"""Row and column, from 0 at the top left."""
WAYS: Mapping[str, Cell] = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}
State = TypeVar("State")


def beside(cell: Cell, way: str, steps: int = 1) -> Cell:
    """The cell so many steps away."""
    down, right = WAYS[way]
    return cell[0] + steps * down, cell[1] + steps * right


def distances(ends: Iterable[State], before: Callable[[State], Iterable[State]]) -> dict[State, int]:
    """Moves from every state to the nearest end, by breadth-first search backwards; states that reach none are left out.

    Args:
        ends: where the search begins.
        before: the states from which one move leads to a state.
    """
    found = dict.fromkeys(ends, 0)
    todo = deque(found)
    while todo:
        state = todo.popleft()
        for each in before(state):
            if each not in found:
                found[each] = found[state] + 1
                todo.append(each)
    return found
