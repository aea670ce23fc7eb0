"""The levels of a grader's sandbox, and their measurement, which tries what they should stop.

| level | what a completion's code can no longer do |
|---|---|
| ``off`` | nothing is stopped: a process of its own with a time limit, the trainer's whole environment, no fork |
| ``process`` | read the trainer's environment, take memory without limit, outlive its grading, change the grading of another completion |
| ``kernel`` | also: read files other than libraries, write files, open connections, start programs, signal or look into other processes |
| ``namespaces`` | the same, and there is no network, process or file to try it on |

``best`` takes the strongest level that starts here *and* passes its own measurement: a hostile job tries to read and write a canary
file, to connect to a port, to read a variable and the trainer's ``/proc`` entry, to fork, to send a signal and to take too much memory.
``require`` does the same among ``namespaces`` and ``kernel`` and refuses the rest. A level's name takes that level or refuses.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rheostat.errors import RheostatError, unknown

LEVELS = ("off", "process", "kernel", "namespaces")
"""Weakest first."""
CHOICES: dict[str, tuple[str, ...]] = {
    "best": ("namespaces", "kernel", "process"),
    "require": ("namespaces", "kernel"),
    **{level: (level,) for level in LEVELS},
}
"""Setting -> levels to try, in order."""

ATTEMPTS = ("read", "write", "connect", "variable", "proc", "fork", "signal", "memory")
"""What the measurement tries."""
PROMISES: dict[str, frozenset[str]] = {
    "off": frozenset(),
    "process": frozenset({"variable", "memory"} if sys.platform == "linux" else {"variable"}),
    "kernel": frozenset(ATTEMPTS),
    "namespaces": frozenset(ATTEMPTS),
}
"""Level -> attempts that must fail there."""

NEEDS: dict[str, str] = {
    "environment": "sees the trainer's environment variables",
    "network": "opens connections",
    "files": "reads and writes files after it was loaded",
    "programs": "starts programs",
    "state": "keeps state from one call to the next, so it is not forked",
}
"""What a grader may opt out of. Each but ``environment`` takes it to the level ``process``."""


@dataclass(frozen=True)
class Standing:
    """The level a grader runs at and how it was chosen."""

    grader: str
    level: str
    needs: tuple[str, ...] = ()
    """What it opted out of."""
    stopped: tuple[str, ...] = ()
    """Attempts of the measurement that failed, as they should."""
    worked: tuple[str, ...] = ()
    """Attempts that worked."""
    refused: dict[str, str] = field(default_factory=dict)
    """Stronger level -> why it was not taken."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "grader": self.grader,
            "level": self.level,
            "needs": list(self.needs),
            "stopped": list(self.stopped),
            "worked": list(self.worked),
            "refused": self.refused,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Standing:
        """Read from plain JSON."""
        lists = {name: tuple(map(str, content.get(name, ()))) for name in ("needs", "stopped", "worked")}
        return cls(str(content.get("grader")), str(content.get("level")), **lists, refused=dict(content.get("refused", {})))

    def sentence(self) -> str:
        """One line for people."""
        opted = f", opted out of {', '.join(self.needs)}" if self.needs else ""
        stopped = f", stopped when tried: {', '.join(self.stopped)}" if self.stopped else ""
        worked = f", not stopped when tried: {', '.join(self.worked)}" if self.worked else ""
        return f"{self.grader}: {'no sandbox' if self.level == 'off' else self.level}{opted}{stopped}{worked}"


def rank(level: str) -> int:
    """The level's place, weakest first.

    Raises:
        RheostatError: no such level.
    """
    if level not in LEVELS:
        raise unknown("sandbox level", level, LEVELS)
    return LEVELS.index(level)


def candidates(setting: str, needs: Sequence[str] = ()) -> tuple[str, ...]:
    """The levels to try, in order, for a grader with these needs.

    Raises:
        RheostatError: unknown setting or need, or a need that the setting forbids.
    """
    if setting not in CHOICES:
        raise unknown("sandbox setting", setting, CHOICES)
    for need in needs:
        if need not in NEEDS:
            raise unknown("need of a reward function", need, NEEDS)
    opening = [need for need in needs if need != "environment"]
    if not opening:
        return CHOICES[setting]
    if setting in ("require", "kernel", "namespaces"):
        raise RheostatError(
            f"A reward function that needs {', '.join(opening)} cannot run in a sandbox of level {setting}: take --sandbox best, where it "
            "runs at the level process and the run's record says so."
        )
    return ("off",) if setting == "off" else ("process",)


def weakest(standings: Iterable[Standing]) -> str | None:
    """The weakest level among several graders; None for none."""
    levels = [standing.level for standing in standings]
    return min(levels, key=rank) if levels else None


def standings_of(verifier: Any) -> list[Standing]:
    """The sandbox levels of a verifier's graders; empty for one that evaluates nothing in a process of its own."""
    found = getattr(verifier, "standings", None)
    return list(found()) if callable(found) else []
