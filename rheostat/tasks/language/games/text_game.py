"""What all text games share: a task whose prompts open games, and a game that answers one move per turn.

The policy's turn is one move, as text. A move that the game does not understand changes nothing but costs a turn (and the ``penalty``).
Games are characters, so that tiny models can play them; with ``chat=True`` the rules stand before the opening, as a chat message for
models that read English, and the last line of an answer is the move. Time limits are truncations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rheostat.credit.verifiers.verifier_interface import Grade
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.guess_number import TurnByTurn
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split, content_key, is_validation
from rheostat.tasks.language.text_episodes import PROGRESS, Partners, Reply, Said

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789 \n#$.*+@-=?:<>&,"
"""Of all text games, so that every base model of theirs can play every game."""
BLOCK = 64


class Game(ABC):
    """One game, as it is played. Subclasses change their state in :meth:`take` and describe it.

    Attributes:
        turns: moves that may be made.
        penalty: subtracted for a move that is not understood.
        over: the game has ended.
        won: it has ended as well as it can.
    """

    turns: int = 1
    penalty: float = 0.0
    over = False
    won = False

    @abstractmethod
    def take(self, move: str) -> float | None:
        """Make a move; returns its reward, None where it is not understood."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """What the player sees after a move."""

    @abstractmethod
    def moves(self) -> list[str]:
        """Moves that are understood now."""

    @abstractmethod
    def best(self) -> str:
        """The move of an expert who knows the whole state; any move where the game is lost."""

    def remaining(self) -> int | None:
        """Moves that the expert still needs to win; None where the game is lost, or has a potential of another kind."""
        return None

    def potential(self) -> float | None:
        """How near the end is, at most 0, which is won; None for a game that does not know. What a turn changes in it adds up over a game
        to its last value minus its first (Ng et al. 1999)."""
        left = self.remaining()
        return -1.0 if left is None else -min(left, self.turns) / self.turns

    def reply(self, said: Said) -> Reply:
        """The game's answer to a turn of the policy.

        Parts of the grade: ``won``; ``understood``, the moves that were; ``progress``, the change of the potential, where it is known.
        """
        before = self.potential()
        worth = self.take(move_of(said.text))
        parts = {"won": float(self.won), "understood": float(worth is not None)}
        after = self.potential()
        if before is not None and after is not None:
            parts[PROGRESS] = after - before
        grade = Grade(-self.penalty if worth is None else worth, parts)
        return Reply(self.shown, grade, terminated=self.over)


def move_of(text: str) -> str:
    """The move in a turn of the policy: its last line that is not empty, without blanks around it, in small letters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].lower() if lines else ""


def opening_of(prompt: Prompt) -> str:
    """The opening of a game, without the rules of a chat."""
    text = prompt.content if isinstance(prompt.content, str) else prompt.content[-1]["content"]
    return text.rpartition("\n\n")[2]


@dataclass(frozen=True)
class TextGame(LanguageTask):
    """A family of games and its knobs.

    Raises:
        RheostatError: knobs that make no game.
    """

    turns: int = 15
    """Moves; a game that is not over then is truncated."""
    penalty: float = 0.0
    """Subtracted from the reward for every move that the game does not understand."""
    chat: bool = False
    """Open with the rules, as a chat message, for models that read English."""
    validation_share: float = 0.2
    """Share of all games set aside for validation."""
    name: str = "text-game"

    knows_progress: ClassVar[bool] = True  # type: ignore[misc]
    rules: ClassVar[str] = ""
    """In English."""
    longest_opening: ClassVar[int] = 64
    """Characters that an opening has at most."""
    longest_move: ClassVar[int] = 1
    """Characters of the longest move that is understood."""

    def __post_init__(self) -> None:
        self.require("turns", self.turns, 1, 64)
        if not 0 <= self.validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {self.validation_share}.")
        if not 0 <= self.penalty <= 1:
            raise RheostatError(f"The penalty of a move that is not understood lies in 0 to 1; got {self.penalty}.")

    def require(self, knob: str, value: int, least: int, most: int) -> None:
        """Refuse a knob outside its bounds.

        Raises:
            RheostatError: naming the knob and its bounds.
        """
        if not least <= value <= most:
            raise RheostatError(f"{knob} of {self.name} lies in {least} to {most}; got {value}.")

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[str, Any, dict[str, Any]]:
        """A game at random: the opening, what the policy does not see, and other facts for :meth:`game`."""

    @abstractmethod
    def game(self, prompt: Prompt) -> Game:
        """The game of a prompt, at its beginning."""

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """``max_new_tokens`` is of one move with its end; a chat model's answer may be longer."""
        return Limits(1024, 64) if self.chat else Limits(self.longest_opening, self.longest_move + 1)

    @property
    def base(self) -> str | None:
        """The base model that plays a little; a chat model is the user's."""
        return None if self.chat else self.name

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Characters of all text games."""
        from rheostat.tasks.language.characters import character_tokenizer

        return character_tokenizer(SYMBOLS)

    def prompt(self, opening: str, answer: Any, columns: dict[str, Any]) -> Prompt:
        """The prompt of a game; its key depends on what the policy does not see, too."""
        content: Any = [{"role": "user", "content": f"{self.rules}\n\n{opening}"}] if self.chat else opening
        return Prompt(content, answer, columns, content_key(f"{self.name}\n{opening}\n{answer}"))

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The games of one draw of 64 that belong to the split."""
        rng = np.random.default_rng([derive_seed(seed, self.name, split), number])
        games = [self.prompt(*self.draw(rng)) for _ in range(BLOCK)]
        return [game for game in games if is_validation(game.key, self.validation_share) == (split == "validation")]

    def start(self, prompt: Prompt) -> Game:
        """The game of a prompt under this task's limits."""
        game = self.game(prompt)
        game.turns, game.penalty = self.turns, self.penalty
        return game

    def episodes(self) -> Partners:
        """The environment: a game for every conversation. Members of a group play the same game."""
        return Partners(self.name, lambda prompt, _: self.start(prompt), self.turns)

    def verifier(self) -> TurnByTurn:
        """Games are graded turn by turn."""
        return TurnByTurn(self.name)
