"""``textworld``: games that TextWorld generates (Côté et al. 2018, arXiv 1806.11532), as a task of several turns (extra ``textworld``).

A seed makes a house of rooms and objects and a quest in it; the policy writes commands. Reward and score are TextWorld's: the quest earns
1, and nothing else does. Every turn says by how much it has shortened the way to the end (the column ``progress``), because TextWorld
knows the commands that are still needed. Its compiler takes some seconds for a game, and games are kept in the cache.

The interpreter has commands that write files (``save``, ``script``) or undo moves. What the policy writes never reaches it unless it begins
with a verb of the game and is made of plain words.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rheostat.errors import MissingExtra, RheostatError
from rheostat.files import cache_root
from rheostat.tasks.language.gymnasium_text import GymnasiumText

NAME = "textworld"
RULES = "You play a text adventure. Answer with one command in the last line, for example: open the wooden door"
KNOWS = ("description", "admissible_commands", "policy_commands", "objective", "verbs", "won", "lost")
"""What TextWorld is asked to tell beside the text."""
PLAIN = re.compile(r"[a-z0-9' -]{1,100}")
"""What a command is made of: no full stop and no comma, which separate commands."""
SEVERAL = {"then", "and"}
"""Words that separate commands, too."""


@dataclass(frozen=True)
class Quest:
    """The size of generated games.

    Raises:
        RheostatError: a size that TextWorld does not make.
    """

    rooms: int
    objects: int
    length: int

    def __post_init__(self) -> None:
        for what, value, most in (("rooms", self.rooms, 20), ("objects", self.objects, 40), ("quest_length", self.length, 20)):
            if not 1 <= value <= most:
                raise RheostatError(f"{what} of {NAME} lies in 1 to {most}; got {value}.")

    def file(self, seed: int) -> Path:
        """The game of a seed: from the cache, or compiled now.

        Raises:
            MissingExtra: TextWorld is not installed.
        """
        textworld = _textworld()
        known = json.dumps(asdict(self) | {"seed": seed, "version": textworld.version.__version__}, sort_keys=True)
        place = cache_root() / NAME / hashlib.sha256(known.encode()).hexdigest()[:20]
        if not place.is_dir():
            options = textworld.GameOptions()
            options.seeds, options.nb_rooms, options.nb_objects = seed, self.rooms, self.objects
            options.quest_length, options.quest_breadth = self.length, 1
            place.parent.mkdir(parents=True, exist_ok=True)
            written = Path(tempfile.mkdtemp(dir=place.parent, prefix=".writing-"))
            options.path = str(written / "game.z8")
            try:
                textworld.make(options)
                os.replace(written, place)
            except OSError:
                if not place.is_dir():  # else another process has made the same game
                    raise
            finally:
                shutil.rmtree(written, ignore_errors=True)
        return place / "game.z8"


class Adventure:
    """One game with Gymnasium's interface.

    Args:
        quest: its size.
        list_commands: show the commands that are possible after every text.
    """

    def __init__(self, quest: Quest, *, list_commands: bool) -> None:
        self.quest, self.list_commands = quest, list_commands
        self.environment: Any = None
        self.state: Any = None
        self.left = quest.length
        """Commands that are still needed, as far as is known."""

    def reset(self, *, seed: int, options: Any = None) -> tuple[str, dict[str, Any]]:
        """The objective, and what is seen first."""
        textworld = _textworld()
        self.environment = textworld.start(str(self.quest.file(seed)), request_infos=textworld.EnvInfos(**dict.fromkeys(KNOWS, True)))
        self.state = self.environment.reset()
        self.left = len(self.state.policy_commands)
        return self.shown(f"{self.state.objective}\n\n{self.state.description}"), {}

    def step(self, said: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """The game's answer to a command; one that is no command of the game changes nothing."""
        command = command_of(said, self.state.verbs)
        if command is None:
            return self.shown("That is no command of this game."), 0.0, False, False, {"progress": 0.0, "understood": False}
        before = self.left
        self.state, score, over = self.environment.step(command)
        self.left = 0 if self.state.won else len(self.state.policy_commands) or before
        info = {"is_success": bool(self.state.won), "progress": (before - self.left) / self.quest.length, "understood": True}
        return self.shown(without_status(self.state.feedback)), float(score) if over else 0.0, bool(over), False, info

    def shown(self, text: str) -> str:
        """A text of the game in single spaced lines, and the commands that are possible."""
        lines = [" ".join(line.split()) for line in text.splitlines()]
        seen = "\n".join(line for line in lines if line)
        return f"{seen}\nPossible: {'; '.join(self.state.admissible_commands)}" if self.list_commands else seen

    def close(self) -> None:
        """Unload the interpreter."""
        if self.environment is not None:
            self.environment.close()


class TextWorld(GymnasiumText):
    """Generated games and their knobs.

    Args:
        rooms, objects: of a house.
        quest_length: commands that the quest needs.
        list_commands: show the commands that are possible.
        turns, chat, patience, max_prompt_tokens, max_new_tokens, validation_share: as for
            :class:`~rheostat.tasks.language.gymnasium_text.GymnasiumText`.
        rules: stand before every opening.

    Raises:
        MissingExtra: TextWorld is not installed.
        RheostatError: knobs that make no task.
    """

    knows_progress = True
    seeds_per_block = 4  # a new game takes seconds

    def __init__(
        self,
        *,
        rooms: int = 2,
        objects: int = 4,
        quest_length: int = 3,
        list_commands: bool = True,
        turns: int = 15,
        chat: bool = False,
        rules: str = RULES,
        patience: float = 120.0,
        max_prompt_tokens: int = 1024,
        max_new_tokens: int = 32,
        validation_share: float = 0.2,
    ) -> None:
        _textworld()
        quest = Quest(rooms, objects, quest_length)
        limits: dict[str, Any] = {"max_prompt_tokens": max_prompt_tokens, "max_new_tokens": max_new_tokens}
        limits |= {"turns": turns, "patience": patience, "validation_share": validation_share}
        super().__init__(lambda: Adventure(quest, list_commands=list_commands), chat=chat, rules=rules, **limits)
        self.name = NAME


def command_of(said: str, verbs: list[str]) -> str | None:
    """The command in a turn of the policy, which is hostile: its last line that is not empty; None if it is not one of the game's."""
    lines = [line.strip().lower() for line in said.splitlines() if line.strip()]
    command = lines[-1] if lines else ""
    words = command.split()
    if not PLAIN.fullmatch(command) or words[0] not in verbs or SEVERAL & set(words):
        return None
    return command


def without_status(text: str) -> str:
    """A text of the game without the prompt and the status line that the interpreter prints after it."""
    return text.partition("\n>")[0]


def _textworld() -> Any:
    try:
        import textworld
        import textworld.version
    except ImportError as error:
        raise MissingExtra("textworld", "textworld", "TextWorld") from error
    return textworld
