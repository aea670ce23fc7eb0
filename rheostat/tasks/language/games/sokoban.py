"""``text-sokoban``: push every box onto a goal.

The board is drawn in the usual symbols (``@`` player, ``$`` box, ``.`` goal, ``*`` box on a goal, ``+`` player on a goal, ``#`` wall,
``-`` floor), a line per row, and shown again after every move (``u``, ``d``, ``l``, ``r``). Boxes can be pushed and not pulled, so that a
game can be lost long before it is over; the reward is 1 for the last box and 0 before. Boards are drawn at random among all positions of
a random room whose shortest solution has the length asked for, found by a search backwards from the solved positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from rheostat.errors import RheostatError
from rheostat.tasks.language.games.boards import WAYS, Cell, beside, distances
from rheostat.tasks.language.games.text_game import Game, TextGame, opening_of
from rheostat.tasks.language.task_interface import Prompt

Position = tuple[Cell, frozenset[Cell]]
"""The player, and the boxes."""
ROOMS = 200
"""Rooms that are tried before the knobs count as impossible."""


@dataclass(frozen=True)
class TextSokoban(TextGame):
    """The rooms and their knobs."""

    size: int = 4
    """Rows and columns of the room."""
    boxes: int = 1
    """Boxes, and goals."""
    walls: int = 2
    """Walls inside the room."""
    shortest: int = 2
    """Moves of the shortest solution, at least."""
    furthest: int = 8
    """Moves of the shortest solution, at most, and never more than there are turns."""
    name: str = "text-sokoban"
    rules: ClassVar[str] = (
        "Sokoban: push every box ($) onto a goal (.). You are @ (+ on a goal), * is a box on a goal, # a wall, - the floor. A box can be "
        "pushed and not pulled. Answer with one letter: u, d, l or r."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("size", self.size, 3, 7)
        self.require("boxes", self.boxes, 1, 2)
        self.require("walls", self.walls, 0, self.size)
        self.require("shortest", self.shortest, 1, self.turns)
        self.require("furthest", self.furthest, self.shortest, 64)

    @property
    def longest_opening(self) -> int:  # type: ignore[override]
        """Cells, line ends and a colon."""
        return self.size * (self.size + 1)

    def draw(self, rng: np.random.Generator) -> tuple[str, Any, dict[str, Any]]:
        """A room at random, and a position in it.

        Raises:
            RheostatError: no room has such a position.
        """
        cells = [(row, column) for row in range(self.size) for column in range(self.size)]
        for _ in range(ROOMS):
            chosen = [cells[each] for each in rng.permutation(len(cells))[: self.walls + self.boxes].tolist()]
            room = Room(self.size, frozenset(chosen[: self.walls]), frozenset(chosen[self.walls :]))
            near = [each for each, left in solutions(room).items() if self.shortest <= left <= min(self.furthest, self.turns)]
            if near:
                player, boxes = min(near, key=_order) if len(near) == 1 else sorted(near, key=_order)[int(rng.integers(len(near)))]
                return room.picture(player, boxes) + ":", None, {}
        lengths = f"{self.shortest} to {min(self.furthest, self.turns)}"
        raise RheostatError(f"No room of text-sokoban has a shortest solution of {lengths} moves: lower shortest, or widen the room.")

    def game(self, prompt: Prompt) -> Sokoban:
        """The position that the prompt shows."""
        return Sokoban(*read_picture(opening_of(prompt)))


def _order(position: Position) -> Any:
    return position[0], sorted(position[1])


@dataclass(frozen=True)
class Room:
    """What does not move."""

    size: int
    walls: frozenset[Cell]
    goals: frozenset[Cell]

    def free(self, cell: Cell) -> bool:
        """Whether a cell is in the room and no wall."""
        return 0 <= cell[0] < self.size and 0 <= cell[1] < self.size and cell not in self.walls

    def picture(self, player: Cell, boxes: Iterable[Cell]) -> str:
        """The board, without the line end of its last row."""
        boxes = set(boxes)

        def symbol(cell: Cell) -> str:
            if cell in self.walls:
                return "#"
            if cell in boxes:
                return "*" if cell in self.goals else "$"
            if cell == player:
                return "+" if cell in self.goals else "@"
            return "." if cell in self.goals else "-"

        return "\n".join("".join(symbol((row, column)) for column in range(self.size)) for row in range(self.size))


def read_picture(text: str) -> tuple[Room, Cell, frozenset[Cell]]:
    """A room, the player and the boxes from :meth:`Room.picture`."""
    lines = text.rstrip(":").split("\n")
    at: dict[str, list[Cell]] = {}
    for row, line in enumerate(lines):
        for column, symbol in enumerate(line):
            at.setdefault(symbol, []).append((row, column))
    cells = lambda symbols: frozenset(cell for symbol in symbols for cell in at.get(symbol, []))  # noqa: E731
    (player,) = cells("@+")
    return Room(len(lines), cells("#"), cells(".*+")), player, cells("$*")


@lru_cache(maxsize=512)
def solutions(room: Room) -> Mapping[Position, int]:
    """Moves of the shortest solution of every position that has one."""
    cells = [(row, column) for row in range(room.size) for column in range(room.size) if room.free((row, column))]

    def before(position: Position) -> Iterator[Position]:
        player, boxes = position
        for way in WAYS:
            origin, ahead = beside(player, way, -1), beside(player, way)
            if not room.free(origin) or origin in boxes:
                continue
            yield origin, boxes
            if ahead in boxes:
                yield origin, boxes - {ahead} | {player}

    solved = [(player, frozenset(boxes)) for boxes in combinations(sorted(room.goals), len(room.goals)) for player in cells]
    return distances([each for each in solved if each[0] not in each[1]], before)


class Sokoban(Game):
    """One game.

    Args:
        room: what does not move.
        player: where the player stands.
        boxes: where the boxes stand.
    """

    def __init__(self, room: Room, player: Cell, boxes: frozenset[Cell]) -> None:
        self.room, self.player, self.boxes = room, player, boxes

    @property
    def shown(self) -> str:
        """The board."""
        return self.room.picture(self.player, self.boxes) + ":"

    def after(self, way: str) -> Position:
        """The position after a move; a move against a wall or a box that cannot be pushed changes nothing."""
        to = beside(self.player, way)
        if not self.room.free(to):
            return self.player, self.boxes
        if to not in self.boxes:
            return to, self.boxes
        behind = beside(to, way)
        if not self.room.free(behind) or behind in self.boxes:
            return self.player, self.boxes
        return to, self.boxes - {to} | {behind}

    def take(self, move: str) -> float | None:
        """One step; 1 where it puts the last box onto a goal."""
        if move not in WAYS:
            return None
        self.player, self.boxes = self.after(move)
        self.won = self.over = self.boxes == self.room.goals
        return float(self.won)

    def moves(self) -> list[str]:
        """Ways that change something."""
        return [way for way in WAYS if self.after(way) != (self.player, self.boxes)] or list(WAYS)

    def remaining(self) -> int | None:
        """Of the shortest solution; None where a box is stuck."""
        return solutions(self.room).get((self.player, self.boxes))

    def best(self) -> str:
        """A step of a shortest solution."""
        left = solutions(self.room)
        return min(self.moves(), key=lambda way: left.get(self.after(way), 10**6))
