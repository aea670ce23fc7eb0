"""``text-negotiation``: agree on a price with a seller who gives way slowly.

``worth 9 ask 8:`` opens a game: what the good is worth to the policy, and what the seller asks. ``o 4`` offers a price, ``y`` takes the
one that is asked. The seller has a lowest price that is not shown. What the seller would take falls from the asked price to the lowest
one as the game goes on, quickly or slowly by a temper that is not shown either; an offer of at least that is taken, else the seller asks
for that much. A shameless offer, more than two below the lowest price, ends the game. The reward is the policy's share of what there is
to gain, ``(worth - price) / (worth - lowest)``, and 0 without a deal. The seller is a function of the game, so members of a group meet
the same one.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rheostat.tasks.language.games.text_game import Game, TextGame, opening_of
from rheostat.tasks.language.task_interface import Prompt

_OFFER = re.compile(r"o ?(\d{1,2})")
_OPENING = re.compile(r"worth (\d+) ask (\d+):")
SHAMELESS = 2


@dataclass(frozen=True)
class TextNegotiation(TextGame):
    """The goods, the sellers and their knobs."""

    turns: int = 5
    """Moves; a game without a deal is then truncated."""
    highest: int = 20
    """Highest price that is asked."""
    name: str = "text-negotiation"
    knows_progress: ClassVar[bool] = False  # type: ignore[misc]
    longest_opening: ClassVar[int] = 16
    longest_move: ClassVar[int] = 4
    rules: ClassVar[str] = (
        "Buy a good as cheaply as you can. You see what it is worth to you and what the seller asks. Answer with one line: 'o PRICE' to "
        "offer a price, or 'y' to take the price that is asked. A shameless offer ends the talk."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("highest", self.highest, 6, 99)

    def draw(self, rng: np.random.Generator) -> tuple[str, Any, dict[str, Any]]:
        """A good and a seller."""
        ask = int(rng.integers(5, self.highest + 1))
        lowest = int(rng.integers(max(1, ask // 3), ask - 1))
        worth = int(rng.integers(lowest + 1, ask + 2))
        return f"worth {worth} ask {ask}:", lowest, {"temper": float(rng.choice([0.5, 1.0, 2.0]))}

    def game(self, prompt: Prompt) -> Negotiation:
        """The talk of a prompt."""
        found = _OPENING.fullmatch(opening_of(prompt))
        assert found is not None
        return Negotiation(int(found[1]), int(found[2]), int(prompt.answer), prompt.columns["temper"], self.turns)


class Negotiation(Game):
    """One talk.

    Args:
        worth: of the good to the policy.
        ask: what the seller asks at first.
        lowest: price that the seller takes at last.
        temper: exponent of how the seller gives way; below 1 early, above 1 late.
        turns: moves until the seller takes the lowest price.
    """

    def __init__(self, worth: int, ask: int, lowest: int, temper: float, turns: int) -> None:
        self.worth, self.first, self.lowest, self.temper, self.turns = worth, ask, lowest, temper, turns
        self.ask, self.offers = ask, 0

    @property
    def shown(self) -> str:
        """What the seller asks now, or how the talk ended."""
        return ("deal:" if self.won else "no:") if self.over else f"ask {self.ask}:"

    def price_after(self, offers: int) -> int:
        """What the seller takes after so many offers."""
        share = min(1.0, offers / max(1, self.turns - 1)) ** self.temper
        return math.ceil(self.first - share * (self.first - self.lowest))

    def take(self, move: str) -> float | None:
        """An offer, or a yes."""
        if move == "y":
            return self._deal(self.ask)
        offered = _OFFER.fullmatch(move)
        if not offered:
            return None
        offer, price = int(offered[1]), self.price_after(self.offers)
        self.offers += 1
        if offer < self.lowest - SHAMELESS:
            self.over = True
            return 0.0
        if offer >= min(price, self.ask):
            return self._deal(offer)
        self.ask = self.price_after(self.offers)
        return 0.0

    def _deal(self, price: int) -> float:
        """The policy's share of the gain; below 0 where more than the good's worth is paid."""
        self.over = self.won = True
        return max(-1.0, (self.worth - price) / (self.worth - self.lowest))

    def potential(self) -> None:
        """How good a talk stands depends on what comes: nobody knows."""
        return

    def moves(self) -> list[str]:
        """Taking the price, or an offer between 1 and the good's worth."""
        return ["y", *(f"o {price}" for price in range(1, self.worth + 1))]

    def best(self) -> str:
        """Wait with offers just below what the seller takes, and offer the lowest price when the seller takes it."""
        price = min(self.price_after(self.offers), self.ask)
        return f"o {self.lowest}" if price == self.lowest else f"o {max(self.lowest - SHAMELESS, 0)}"
