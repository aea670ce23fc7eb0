"""``text-shop``: find what was asked for in a shop, and buy it.

``buy red mug max 7:`` opens a game: a colour, a thing, and the highest price. ``s WORDS`` searches; the game lists the goods that match
most of the words, three at a time, as ``1 red mug 9`` (place, colour, thing, price); ``n`` shows the next three. ``b 2`` buys the second
of the list and ends the game. The reward is the share of the three wishes (colour, thing, price) that the bought good meets, and the game
is won where it meets all of them. The catalogue is drawn from its own seed, so that one shop can be learned and another one tested.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from rheostat.streams import derive_seed
from rheostat.tasks.language.games.text_game import Game, TextGame, opening_of
from rheostat.tasks.language.task_interface import Prompt

COLOURS = ("red", "blue", "green", "black", "white", "pink")
THINGS = ("mug", "hat", "bag", "pen", "cup", "toy", "box", "mat")
PRICES = 9
SHOWN = 3
"""Goods of one page."""
_BUY = re.compile(r"b ?([1-9])")
_OPENING = re.compile(r"buy (\w+) (\w+) max (\d):")


@dataclass(frozen=True)
class Good:
    """One thing of the catalogue."""

    colour: str
    thing: str
    price: int


@lru_cache(maxsize=64)
def catalogue(goods: int, seed: int) -> tuple[Good, ...]:
    """So many goods, drawn from a seed; a colour and a thing occur together several times, at different prices."""
    rng = np.random.default_rng(derive_seed(seed, "text-shop", "catalogue"))
    found = []
    for _ in range(goods):
        colour, thing = COLOURS[int(rng.integers(len(COLOURS)))], THINGS[int(rng.integers(len(THINGS)))]
        found.append(Good(colour, thing, int(rng.integers(1, PRICES + 1))))
    return tuple(found)


@dataclass(frozen=True)
class TextShop(TextGame):
    """The shop and its knobs."""

    turns: int = 6
    """Moves; a game that is not over then is truncated."""
    goods: int = 120
    """Goods in the catalogue."""
    catalogue_seed: int = 0
    """Of the catalogue."""
    name: str = "text-shop"
    longest_opening: ClassVar[int] = 24
    longest_move: ClassVar[int] = 12
    rules: ClassVar[str] = (
        "A shop. Buy what is asked for, at most at the price that is named. Answer with one line: 's WORDS' to search, 'n' for the next "
        "goods, or 'b NUMBER' to buy a good of the list, which ends the visit."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("goods", self.goods, SHOWN, 500)

    def draw(self, rng: np.random.Generator) -> tuple[str, Any, dict[str, Any]]:
        """A wish that one good of the catalogue meets."""
        goods = catalogue(self.goods, self.catalogue_seed)
        chosen = goods[int(rng.integers(len(goods)))]
        highest = min(PRICES, chosen.price + int(rng.integers(2)))
        return f"buy {chosen.colour} {chosen.thing} max {highest}:", None, {}

    def game(self, prompt: Prompt) -> Shop:
        """A visit with the prompt's wish."""
        found = _OPENING.fullmatch(opening_of(prompt))
        assert found is not None
        return Shop(catalogue(self.goods, self.catalogue_seed), Good(found[1], found[2], int(found[3])))


class Shop(Game):
    """One visit.

    Args:
        goods: the catalogue.
        wish: colour, thing and the highest price.
    """

    def __init__(self, goods: tuple[Good, ...], wish: Good) -> None:
        self.goods, self.wish = goods, wish
        self.found: list[Good] = []
        self.first = 0

    @property
    def page(self) -> list[Good]:
        """The goods that are shown."""
        return self.found[self.first : self.first + SHOWN]

    @property
    def shown(self) -> str:
        """The page, a line per good."""
        lines = [f"{place} {good.colour} {good.thing} {good.price}" for place, good in enumerate(self.page, 1)]
        return "\n".join(lines or ["-"]) + ":"

    def met(self, good: Good) -> float:
        """Share of the wishes that a good meets."""
        return (float(good.colour == self.wish.colour) + float(good.thing == self.wish.thing) + float(good.price <= self.wish.price)) / 3

    def take(self, move: str) -> float | None:
        """Search, turn the page, or buy."""
        if move == "n":
            self.first = self.first + SHOWN if self.first + SHOWN < len(self.found) else 0
            return 0.0
        if move.startswith("s "):
            self._search(move[2:].split())
            return 0.0
        bought = _BUY.fullmatch(move)
        if not bought or int(bought[1]) > len(self.page):
            return None
        good = self.page[int(bought[1]) - 1]
        self.over, self.won = True, self.met(good) == 1
        return self.met(good)

    def _search(self, words: list[str]) -> None:
        """Goods that match most of the words; those that match none are left out."""
        matches = lambda good: len({good.colour, good.thing} & set(words))  # noqa: E731
        self.found, self.first = sorted(filter(matches, self.goods), key=matches, reverse=True), 0

    def moves(self) -> list[str]:
        """A search for any colour and thing of the catalogue, the next page, and every good that is shown."""
        searches = [f"s {good.colour} {good.thing}" for good in self.goods[:8]]
        return [*searches, "n", *(f"b {place}" for place in range(1, len(self.page) + 1))]

    def _place(self) -> int | None:
        """Place of the first good of the list, from the present page on, that meets all wishes."""
        later = range(self.first, len(self.found))
        return next((place for place in later if self.met(self.found[place]) == 1), None)

    def remaining(self) -> int | None:
        """Moves to buy a good that meets all wishes: pages to turn and the purchase, or a search before."""
        if self.over:
            return 0 if self.won else None
        place = self._place()
        if place is not None:
            return (place - self.first) // SHOWN + 1
        new = Shop(self.goods, self.wish)
        new._search([self.wish.colour, self.wish.thing])
        found = new._place()
        return None if found is None else found // SHOWN + 2

    def best(self) -> str:
        """Buy what meets the wishes; else turn the page, or search."""
        place = self._place()
        if place is None:
            return f"s {self.wish.colour} {self.wish.thing}"
        return f"b {place - self.first + 1}" if place - self.first < SHOWN else "n"
