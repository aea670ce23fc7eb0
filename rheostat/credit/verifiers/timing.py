"""Time that each reward takes, so that a slow one is found by name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rheostat.credit.verifiers.built_in import WeightedSum
from rheostat.credit.verifiers.verifier_interface import Progress, Rollout, Scores, Verifier


class Timed:
    """A verifier that measures its time.

    Args:
        verifier: what grades.
    """

    def __init__(self, verifier: Verifier) -> None:
        self.verifier, self.name = verifier, verifier.name
        self.seconds = 0.0
        """Spent in it so far, in this process."""

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order."""
        began = time.monotonic()
        try:
            return self.verifier.score(rollouts, progress)
        finally:
            self.seconds += time.monotonic() - began

    def __getattr__(self, name: str) -> Any:
        if name == "verifier":  # while a copy is being made there is none yet
            raise AttributeError(name)
        return getattr(self.verifier, name)


def timed(verifier: Verifier) -> Verifier:
    """The verifier with a clock; several in a sum get one each."""
    if isinstance(verifier, WeightedSum):
        verifier.verifiers = [Timed(each) for each in verifier.verifiers]
        return verifier
    return Timed(verifier)


def seconds_of(verifier: Any) -> dict[str, float]:
    """Seconds spent in each reward by its name; empty where no time was measured."""
    if isinstance(verifier, WeightedSum):
        return {name: each.seconds for name, each in zip(verifier.names, verifier.verifiers, strict=True) if isinstance(each, Timed)}
    return {verifier.name: verifier.seconds} if isinstance(verifier, Timed) else {}
