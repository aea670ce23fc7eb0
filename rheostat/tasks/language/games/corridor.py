"""``text-corridor``: take the key, then open the door.

``k2 d7 @4-:`` opens a game: where the key lies, where the door is, where the player stands, and that the player has no key (``-``). After
every move the game shows the player's place and whether the key is held (``4+:``). Moves: ``l`` and ``r`` (a step), ``t`` (take),
``o`` (open), ``w`` (wait). The reward is 1 for opening the door with the key and 0 for everything else; nothing is lost on the way but
turns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.games.text_game import Game, TextGame, opening_of
from rheostat.tasks.language.task_interface import Prompt

MOVES = "lrtow"


@dataclass(frozen=True)
class TextCorridor(TextGame):
    """The corridors and their knobs."""

    length: int = 10
    """Cells."""
    shortest: int = 6
    """Moves of the shortest solution, at least."""
    furthest: int = 13
    """Moves of the shortest solution, at most, and never more than there are turns."""
    layouts: int = 0
    """How many corridors there are, the same with every seed; 0 for all."""
    name: str = "text-corridor"
    longest_opening: ClassVar[int] = 12
    rules: ClassVar[str] = (
        "A corridor with numbered cells. k is the cell of the key, d that of the door, @ yours; + says that you hold the key, - that you "
        "do not. Take the key, then open the door. Answer with one letter: l (left), r (right), t (take), o (open) or w (wait)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("length", self.length, 3, 10)
        self.require("shortest", self.shortest, 3, self.turns)
        self.require("furthest", self.furthest, self.shortest, 64)
        if self.layouts < 0 or not self.openings:
            lengths = f"{self.shortest} to {min(self.furthest, self.turns)}"
            raise RheostatError(
                f"text-corridor needs layouts of at least 0 and a corridor with a solution of {lengths} moves; got layouts={self.layouts} "
                f"and length={self.length}."
            )

    @cached_property
    def openings(self) -> list[str]:
        """All corridors, or as many as ``layouts`` says."""
        cells = range(self.length)
        found = [
            f"k{key} d{door} @{player}-:"
            for key in cells
            for door in cells
            for player in cells
            if len({key, door, player}) == 3 and self.shortest <= abs(player - key) + abs(key - door) + 2 <= min(self.furthest, self.turns)
        ]
        if not self.layouts:
            return found
        order = np.random.default_rng(derive_seed(0, self.name, "layouts")).permutation(len(found))
        return [found[each] for each in order[: self.layouts].tolist()]

    def draw(self, rng: np.random.Generator) -> tuple[str, Any, dict[str, Any]]:
        """One of the corridors."""
        return self.openings[int(rng.integers(len(self.openings)))], None, {}

    def game(self, prompt: Prompt) -> Corridor:
        """The corridor of a prompt."""
        key, door, player = map(int, re.findall(r"\d", opening_of(prompt)))
        return Corridor(self.length, key, door, player)


class Corridor(Game):
    """One game.

    Args:
        length: cells.
        key, door, player: where they are.
    """

    def __init__(self, length: int, key: int, door: int, player: int) -> None:
        self.length, self.key, self.door, self.player, self.held = length, key, door, player, False

    @property
    def shown(self) -> str:
        """The place, and whether the key is held."""
        return f"{self.player}{'+' if self.held else '-'}:"

    def take(self, move: str) -> float | None:
        """One move; at the end of the corridor a step changes nothing."""
        if len(move) != 1 or move not in MOVES:
            return None
        if move in "lr":
            self.player = min(max(self.player + (1 if move == "r" else -1), 0), self.length - 1)
        self.held = self.held or (move == "t" and self.player == self.key)
        self.won = self.over = move == "o" and self.held and self.player == self.door
        return float(self.won)

    def moves(self) -> list[str]:
        """All five."""
        return list(MOVES)

    def remaining(self) -> int:
        """Steps to the key and to the door, taking and opening."""
        if self.over:
            return 0
        if self.held:
            return abs(self.player - self.door) + 1
        return abs(self.player - self.key) + 1 + abs(self.key - self.door) + 1

    def best(self) -> str:
        """Towards the key, then towards the door."""
        goal = self.door if self.held else self.key
        if self.player == goal:
            return "o" if self.held else "t"
        return "r" if goal > self.player else "l"
