"""What is compared: a method with its options, and the plain side that follows a run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rheostat.api import settings_for
from rheostat.training.settings import CUSTOM, Settings
from tests.plain.control_path import Turn, trained, turned
from tests.plain.control_plain import Followed, compare

Follow = Callable[[list[Turn], Settings, dict[str, int]], Iterator[Followed]]
"""From the turns of a run, its settings, and counts to be filled (how often a clip, a cap or a stop acted), to the plain side of each."""


@dataclass(frozen=True)
class Case:
    """A method with options.

    Attributes:
        method, task, options: of the run; a task is a name, or makes a world of several agents.
        follow: the plain side.
        acts: what must have acted at least once, by its name in the counts.
        policy: makes the user's own network.
        data: makes the folder of a data set.
        note: what is special, for the name.
    """

    method: str
    task: Any
    options: dict[str, Any]
    follow: Follow
    acts: tuple[str, ...] = ()
    note: str = ""
    policy: Callable[[], Any] | None = None
    data: Callable[[], str] | None = None
    counts: dict[str, int] = field(default_factory=dict, hash=False, compare=False)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.method}-{self.note}" if self.note else self.method

    @cached_property
    def settings(self) -> Settings:
        """Of the run."""
        data = {} if self.data is None else {"offline": self.data()}
        name = self.task if isinstance(self.task, str) else f"{CUSTOM}{self.task.__name__}"
        return settings_for(self.method, name, **({"evaluation_episodes": 0} | data | self.options))

    def objects(self) -> dict[str, Any]:
        """What the user brings."""
        task = {} if isinstance(self.task, str) else {"task": self.task}
        return task if self.policy is None else task | {"policy": self.policy()}

    def trained(self, directory: Path) -> list[Turn]:
        """The turns of a run with everything that belongs to one."""
        return trained(self.settings, directory, **self.objects())

    def turned(self, after: Callable[[Turn], None] | None = None) -> list[Turn]:
        """The same turns without a directory; ``after`` is told of each."""
        return turned(self.settings, **self.objects(), after=after)

    def followed(self, turns: list[Turn]) -> list[Followed]:
        """The plain side of each turn."""
        return list(self.follow(turns, self.settings, self.counts))


def alone(turn: Turn) -> list[Turn]:
    """A turn, or those of several agents' policies in it."""
    return list(turn.members.values()) or [turn]


def differences(turns: list[Turn], plain: list[Followed]) -> tuple[float, float]:
    """The largest ones of gradients and of weights.

    Raises:
        AssertionError: they are too large, or other models moved.
    """
    turns = [each for turn in turns for each in alone(turn)]
    assert len(turns) == len(plain)
    found = [compare(turn, own) for turn, own in zip(turns, plain, strict=True)]
    return max(gradient for gradient, _ in found), max(weight for _, weight in found)
