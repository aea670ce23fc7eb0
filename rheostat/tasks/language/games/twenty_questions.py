"""``twenty-questions``: the partner thinks of one of a few animals; ask for properties, then name it.

``cat owl bee cow:`` opens a game: the animals that it may be. ``fur?`` asks for a property, which is answered ``y`` or ``n``; ``=cat``
names the animal and ends the game. The reward is 1 for the right animal and 0 else. What the animals are like is not shown: a model has
to know, or to learn. The questions are few, so that they have to divide the animals well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rheostat.tasks.language.games.text_game import Game, TextGame, opening_of
from rheostat.tasks.language.task_interface import Prompt

ANIMALS: dict[str, str] = {
    "cat": "fur legs pet",
    "dog": "fur legs pet big",
    "cow": "fur legs farm big",
    "pig": "legs farm big",
    "hen": "legs farm wing egg",
    "owl": "legs wing egg wild",
    "bee": "legs wing egg farm small",
    "ant": "legs egg wild small",
    "bat": "fur wing wild small",
    "fox": "fur legs wild",
    "elk": "fur legs wild big",
    "rat": "fur legs wild small",
    "cod": "swim egg wild",
    "eel": "swim egg wild long",
    "boa": "egg wild long",
    "emu": "legs wing egg wild big",
}
"""Animals and what is true of them."""
PROPERTIES = tuple(dict.fromkeys(word for text in ANIMALS.values() for word in text.split()))


def has(animal: str, word: str) -> bool:
    """Whether a property is true of an animal."""
    return word in ANIMALS[animal].split()


@dataclass(frozen=True)
class TwentyQuestions(TextGame):
    """The animals and the knobs."""

    turns: int = 5
    """Questions and the answer."""
    animals: int = 6
    """Animals that it may be."""
    name: str = "twenty-questions"
    longest_move: ClassVar[int] = 6
    rules: ClassVar[str] = (
        "I think of one of these animals. Ask for a property in one word with a question mark (" + ", ".join(PROPERTIES) + "), or name the "
        "animal after an equals sign, which ends the game. Answer with one line, such as 'fur?' or '=cat'."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("animals", self.animals, 2, len(ANIMALS))

    @property
    def longest_opening(self) -> int:  # type: ignore[override]
        """Three letters and a blank for every animal."""
        return 4 * self.animals

    def draw(self, rng: np.random.Generator) -> tuple[str, Any, dict[str, Any]]:
        """Some animals, and one of them."""
        names = list(ANIMALS)
        chosen = [names[each] for each in rng.permutation(len(names))[: self.animals].tolist()]
        return " ".join(chosen) + ":", chosen[int(rng.integers(len(chosen)))], {}

    def game(self, prompt: Prompt) -> Questions:
        """The partner that thinks of the prompt's answer."""
        return Questions(opening_of(prompt).rstrip(":").split(), str(prompt.answer))


class Questions(Game):
    """One game.

    Args:
        animals: which it may be.
        answer: which it is.
    """

    def __init__(self, animals: list[str], answer: str) -> None:
        self.animals, self.answer = animals, answer
        self.left, self.last = list(animals), ""

    @property
    def shown(self) -> str:
        """Yes, no, or a question mark for what was no question."""
        return f"{self.last}:"

    def take(self, move: str) -> float | None:
        """A question, or the answer."""
        if move.startswith("=") and move[1:] in self.animals:
            self.over, self.won = True, move[1:] == self.answer
            self.last = "y" if self.won else "n"
            return float(self.won)
        if not move.endswith("?") or move[:-1] not in PROPERTIES:
            self.last = "?"
            return None
        yes = has(self.answer, move[:-1])
        self.left = [each for each in self.left if has(each, move[:-1]) == yes]
        self.last = "y" if yes else "n"
        return 0.0

    def moves(self) -> list[str]:
        """Every question and every name."""
        return [*(f"{word}?" for word in PROPERTIES), *(f"={each}" for each in self.animals)]

    def potential(self) -> float:
        """Minus the bits that an expert is missing, as a share of those at the beginning, with the answer as a last bit."""
        if self.over:
            return 0.0 if self.won else -1.0
        return -(math.log2(len(self.left)) + 1) / (math.log2(len(self.animals)) + 1)

    def best(self) -> str:
        """The question that divides the animals that are left most evenly; the name where one is left, or none can be told apart."""
        cut = {word: sum(has(each, word) for each in self.left) for word in PROPERTIES}
        word = min(cut, key=lambda each: abs(len(self.left) - 2 * cut[each]))
        return f"={self.left[0]}" if cut[word] in (0, len(self.left)) else f"{word}?"
