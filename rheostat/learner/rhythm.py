"""Intervals: parts that run in every n-th turn, and updates that run in every n-th gradient step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rheostat.parts import Batch, Metrics


@dataclass(frozen=True)
class Every:
    """An annotation or an update, in every ``turns``-th turn only (PROPS collects in blocks and learns from whole batches)."""

    turns: int
    part: Any

    def due(self, context: Any) -> bool:
        """Whether the part runs in this turn."""
        return bool(context.turns % self.turns == 0)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        return self.part(context, batch) if self.due(context) else batch

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Metrics of the update; none where it does not run."""
        return self.part.improve(context, batch) if self.due(context) else {}

    def with_share(self, share: float) -> Any:
        """A copy for a larger number of rows."""
        return replace(self, part=self.part.with_share(share)) if hasattr(self.part, "with_share") else self

    def __getattr__(self, name: str) -> Any:
        if name in ("reads", "writes", "models", "model", "refuses", "check", "describe", "bind", "gradient_steps"):
            return getattr(self.part, name)
        raise AttributeError(name)


def every(turns: int, part: Any) -> Any:
    """``part`` in every so many turns; itself where that is every one."""
    return part if turns == 1 else Every(turns, part)


@dataclass(frozen=True)
class Delayed:
    """Some updates, in every ``steps``-th gradient step."""

    steps: int
    updates: Sequence[Any]
    name: str | None = None
    """Name of the interval among derived numbers; None leaves it out."""

    def describe(self) -> dict[str, int | str]:
        """Derived numbers."""
        return {} if self.name is None else {self.name: self.steps}

    def step(self, context: Any, batch: Batch) -> dict[str, Any]:
        """Metrics of the updates; none where they do not run."""
        found: dict[str, Any] = {}
        if (context.updates + 1) % self.steps == 0:
            for update in self.updates:
                found |= update.step(context, batch)
        return found
