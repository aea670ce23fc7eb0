"""``text-maze``: find the way out of a maze of which only the present cell is seen.

``0,0>3,2 dr:`` opens a game: the cell where the player stands (row and column), the exit, and the ways that are open. After a move
(``u``, ``d``, ``l``, ``r``) the game shows the cell and its open ways. The maze is a tree with a few walls fewer, so that there are
loops. The walls are not shown, so a player has to explore; the reward is 1 at the exit and 0 before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rheostat.tasks.language.games.boards import WAYS, Cell, beside, distances
from rheostat.tasks.language.games.text_game import Game, TextGame
from rheostat.tasks.language.task_interface import Prompt


@dataclass(frozen=True)
class TextMaze(TextGame):
    """The mazes and their knobs."""

    size: int = 4
    """Rows and columns of the maze."""
    loops: int = 2
    """Walls that are taken out of the tree."""
    name: str = "text-maze"
    longest_opening: ClassVar[int] = 13
    rules: ClassVar[str] = (
        "A maze. You see your cell (row,column), first also the exit after >, and the ways that are open. Answer with one letter: u, d, l "
        "or r."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("size", self.size, 2, 9)
        self.require("loops", self.loops, 0, 2 * self.size)

    def draw(self, rng: np.random.Generator) -> tuple[str, Any, dict[str, Any]]:
        """A maze, its exit, and a cell from which the exit can be reached within the turns."""
        ways = maze(self.size, self.loops, rng)
        cells = [(row, column) for row in range(self.size) for column in range(self.size)]
        goal = cells[int(rng.integers(len(cells)))]
        left = distances([goal], lambda cell: (beside(cell, way) for way in ways[cell]))
        near = [cell for cell in cells if 0 < left[cell] <= self.turns]
        player = near[int(rng.integers(len(near)))]
        drawn = " ".join("".join(ways[cell]) for cell in cells)
        return f"{_named(player)}>{_named(goal)} {''.join(ways[player])}:", drawn, {"player": list(player), "exit": list(goal)}

    def game(self, prompt: Prompt) -> Maze:
        """The maze of a prompt."""
        ways = str(prompt.answer).split(" ")
        cells = {divmod(number, self.size): way for number, way in enumerate(ways)}
        return Maze(cells, (*prompt.columns["player"],), (*prompt.columns["exit"],))


def _named(cell: Cell) -> str:
    return f"{cell[0]},{cell[1]}"


def maze(size: int, loops: int, rng: np.random.Generator) -> dict[Cell, str]:
    """The open ways of every cell of a random maze: a tree by depth-first search, and further openings."""
    ways: dict[Cell, set[str]] = {(row, column): set() for row in range(size) for column in range(size)}

    def open_wall(cell: Cell, way: str) -> None:
        ways[cell].add(way)
        ways[beside(cell, way)].add({"u": "d", "d": "u", "l": "r", "r": "l"}[way])

    seen, path = {(0, 0)}, [(0, 0)]
    while path:
        closed = [way for way in WAYS if beside(path[-1], way) in ways and beside(path[-1], way) not in seen]
        if not closed:
            path.pop()
            continue
        way = closed[int(rng.integers(len(closed)))]
        open_wall(path[-1], way)
        path.append(beside(path[-1], way))
        seen.add(path[-1])
    walls = [(cell, way) for cell in ways for way in "dr" if beside(cell, way) in ways and way not in ways[cell]]
    for each in rng.permutation(len(walls))[:loops].tolist():
        open_wall(*walls[each])
    return {cell: "".join(way for way in WAYS if way in found) for cell, found in ways.items()}


class Maze(Game):
    """One game.

    Args:
        ways: open ways of every cell.
        player: the cell where the player stands.
        goal: the exit.
    """

    def __init__(self, ways: dict[Cell, str], player: Cell, goal: Cell) -> None:
        self.ways, self.player, self.goal = ways, player, goal
        self.left = distances([goal], self._around)

    def _around(self, cell: Cell) -> Iterator[Cell]:
        return (beside(cell, way) for way in self.ways[cell])

    @property
    def shown(self) -> str:
        """The cell and its open ways."""
        return f"{_named(self.player)} {self.ways[self.player]}:"

    def take(self, move: str) -> float | None:
        """One step; against a wall it changes nothing."""
        if move not in WAYS:
            return None
        if move in self.ways[self.player]:
            self.player = beside(self.player, move)
        self.won = self.over = self.player == self.goal
        return float(self.won)

    def moves(self) -> list[str]:
        """The open ways."""
        return list(self.ways[self.player])

    def remaining(self) -> int:
        """Steps to the exit."""
        return self.left[self.player]

    def best(self) -> str:
        """A step of a shortest way."""
        return min(self.moves(), key=lambda way: self.left[beside(self.player, way)])
