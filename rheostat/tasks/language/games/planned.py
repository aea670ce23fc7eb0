"""``planned-questions`` and ``planned-negotiation``: dialogues in which every turn is a hidden plan and a message.

``<3>&fur?.`` is a turn: the plan between ``<`` and ``>``, the message between ``&`` and ``.``. The partner sees the message alone. The
games are those of ``twenty-questions`` and ``text-negotiation``; the plan of the scripted expert is how many animals are left, and how
many offers have been made. A turn whose tags are missing or in another order is malformed: the partner does not understand it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.tasks.language.games.negotiation import TextNegotiation
from rheostat.tasks.language.games.text_game import Game
from rheostat.tasks.language.games.twenty_questions import TwentyQuestions
from rheostat.tasks.language.reply_tags import message_of
from rheostat.tasks.language.task_interface import Prompt

TAGS = ("<", ">", "&", ".")
"""Around the plan and around the message."""
LONGEST_PLAN = 2
"""Characters of the expert's plans."""
FORM = " Write every turn as <PLAN>&MESSAGE. with your plan, which nobody sees, and your message: one line as above."


class Planning(Game):
    """A game whose player plans aloud and is heard in part.

    Args:
        inner: the game, which sees the messages.
        plan: of the expert, in the present state.
    """

    def __init__(self, inner: Game, plan: Callable[[], int]) -> None:
        self.inner, self.plan = inner, plan

    @property
    def shown(self) -> str:
        """What the inner game shows."""
        return self.inner.shown

    def take(self, move: str) -> float | None:
        """Send the message; a malformed turn sends an empty one."""
        worth = self.inner.take(message_of(move, TAGS) or "")
        self.over, self.won = self.inner.over, self.inner.won
        return worth

    def said(self, message: str) -> str:
        """A well-formed turn of the expert."""
        return f"<{self.plan()}>&{message}."

    def moves(self) -> list[str]:
        """Those of the inner game, with the expert's plan."""
        return [self.said(move) for move in self.inner.moves()]

    def best(self) -> str:
        """The inner game's, with the expert's plan."""
        return self.said(self.inner.best())

    def potential(self) -> float | None:
        """Of the inner game."""
        return self.inner.potential()


@dataclass(frozen=True)
class PlannedQuestions(TwentyQuestions):
    """Twenty questions with plans; the knobs are the same."""

    name: str = "planned-questions"
    tags: ClassVar[tuple[str, ...]] = TAGS  # type: ignore[misc]
    longest_move: ClassVar[int] = TwentyQuestions.longest_move + len(TAGS) + LONGEST_PLAN
    rules: ClassVar[str] = TwentyQuestions.rules + FORM

    def game(self, prompt: Prompt) -> Planning:  # type: ignore[override]
        """The partner of a prompt."""
        inner: Any = super().game(prompt)
        return Planning(inner, lambda: len(inner.left))


@dataclass(frozen=True)
class PlannedNegotiation(TextNegotiation):
    """Negotiation with plans; the knobs are the same."""

    name: str = "planned-negotiation"
    tags: ClassVar[tuple[str, ...]] = TAGS  # type: ignore[misc]
    longest_move: ClassVar[int] = TextNegotiation.longest_move + len(TAGS) + LONGEST_PLAN
    rules: ClassVar[str] = TextNegotiation.rules + FORM

    def game(self, prompt: Prompt) -> Planning:  # type: ignore[override]
        """The talk of a prompt."""
        inner: Any = super().game(prompt)
        return Planning(inner, lambda: inner.offers)
