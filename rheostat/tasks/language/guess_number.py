"""``guess-number``: the partner thinks of a number, the policy guesses, the partner answers whether the number is higher or lower.

``0:9?`` opens a conversation. The policy guesses (``5``, or ``#5``), and the partner answers ``+`` (the number is higher), ``-`` (it is
lower) or ``?`` (that was no number of the range). Ten numbers need four guesses of a player that halves the range every time; with a guess
drawn at random each time, without repetition, four turns find 4 in 10. The symbols are those of the arithmetic tasks, so that their base
models can play.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split, content_key, is_validation
from rheostat.tasks.language.text_episodes import Partners, Reply, Said

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HIGHER, LOWER, NEITHER = "+", "-", "?"
BLOCK = 64

_GUESS = re.compile(r"#?(\d{1,3})")


@dataclass(frozen=True)
class GuessNumber(LanguageTask):
    """The game and its knobs.

    Raises:
        RheostatError: knobs that make no game.
    """

    largest: int = 9
    """Largest number of any range."""
    smallest_range: int = 4
    """Numbers that a range has at least."""
    turns: int = 4
    """Guesses."""
    validation_share: float = 0.2
    """Share of all games (a range and the number in it) set aside for validation."""
    name: str = "guess-number"

    def __post_init__(self) -> None:
        if not 1 <= self.largest <= 999:
            raise RheostatError(f"The largest number of guess-number lies in 1 to 999; got {self.largest}.")
        if not 2 <= self.smallest_range <= self.largest + 1:
            raise RheostatError(
                f"smallest_range lies in 2 to {self.largest + 1}, the numbers up to the largest; got {self.smallest_range}."
            )
        if not 1 <= self.turns <= 64:
            raise RheostatError(f"guess-number takes 1 to 64 turns; got {self.turns}.")
        if not 0 <= self.validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {self.validation_share}.")

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """``max_new_tokens`` is of one turn: ``#``, the digits of the largest number, the end."""
        digits = len(str(self.largest))
        return Limits(2 * digits + 2, digits + 2)

    @property
    def base(self) -> str:
        """The base of the arithmetic tasks, which writes ``#5`` but does not know the game."""
        return "chain-sum"

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Characters, 21 symbols."""
        from rheostat.tasks.language.characters import character_tokenizer

        return character_tokenizer()

    def game(self, low: int, high: int, number: int) -> Prompt:
        """The prompt of a game; its key depends on the number, which the prompt does not show."""
        text = f"{low}:{high}?"
        return Prompt(text, str(number), {"low": low, "high": high}, content_key(f"{text}{number}"))

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The games of one draw of 64 that belong to the split."""
        rng = np.random.default_rng([derive_seed(seed, self.name, split), number])
        games = []
        for _ in range(BLOCK):
            size = int(rng.integers(self.smallest_range, self.largest + 2))
            low = int(rng.integers(0, self.largest + 2 - size))
            games.append(self.game(low, low + size - 1, int(rng.integers(low, low + size))))
        return [game for game in games if is_validation(game.key, self.validation_share) == (split == "validation")]

    def episodes(self) -> Partners:
        """The environment: a partner for every game."""
        return Partners(self.name, lambda prompt, _: Thinker(prompt), self.turns)

    def verifier(self) -> TurnByTurn:
        """Games are graded turn by turn."""
        return TurnByTurn(self.name)


class Thinker:
    """Thinks of the prompt's answer.

    Args:
        prompt: of the game.
    """

    def __init__(self, prompt: Prompt) -> None:
        self.number, self.low, self.high = int(prompt.answer), prompt.columns["low"], prompt.columns["high"]

    def reply(self, said: Said) -> Reply:
        """1 for the number, which ends the game; 0 and a hint for everything else. Parts: whether the number was found, and guesses that
        were numbers of the range."""
        found = _GUESS.fullmatch(said.text)
        guess = int(found[1]) if found else -1
        inside = self.low <= guess <= self.high
        right = guess == self.number
        grade = Grade(float(right), {"found": float(right), "guesses": float(inside)})
        return Reply((HIGHER if guess < self.number else LOWER) if inside else NEITHER, grade, terminated=right)


class TurnByTurn:
    """Takes the verifier's place in tasks whose environment grades; grades no single completion.

    Args:
        name: of the task.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Refuse.

        Raises:
            RheostatError: always.
        """
        raise RheostatError(
            f"The conversations of {self.name} are graded turn by turn by the environment: a single completion has no grade."
        )
