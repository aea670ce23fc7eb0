"""When a control policy is evaluated during training.

Measuring draws from random streams of its own and reads statistics without moving them, so that it never changes training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.options import option


@dataclass(frozen=True)
class Evaluations:
    """When the policy is evaluated: before the first update, at an interval of steps, where the online phase begins, and at the end."""

    evaluate_every: int = option(0, at_least=0)
    """Steps between measurements of the policy (deterministic actions in fresh environments); the first comes before any update. 0 never
    measures."""
    evaluate_episodes: int = option(5, at_least=1)
    """Episodes per evaluation."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.evaluate_every else {"evaluate_episodes": "evaluate_every is 0, so set that too, or leave it alone"}

    def prepare(self, context: Any) -> None:
        """Store the calendar in the context."""
        if self.evaluate_every:
            context.calendar = context.stores["calendar"] = Calendar(self)


class Calendar:
    """Keeps track of the next evaluation.

    Args:
        options: the interval and the size.
    """

    def __init__(self, options: Evaluations) -> None:
        self.options, self.next = options, options.evaluate_every

    @property
    def first(self) -> int:
        """Episodes that are due before the first update."""
        return self.options.evaluate_episodes if self.options.evaluate_every else 0

    def episodes_due(self, steps: int, budget: int, *, begins: bool = False) -> int:
        """Episodes of the evaluation after a turn; 0 where none is due.

        Args:
            steps: of the budget that have been used.
            budget: of the run, at whose end there is a measurement in any case.
            begins: whether acting begins after a data set, where there is one, too.
        """
        every = self.options.evaluate_every
        if not every or not (begins or steps >= min(self.next, budget)):
            return 0
        self.next = next_multiple(steps, every)
        return self.options.evaluate_episodes

    def state_dict(self) -> dict[str, Any]:
        """The steps at which the next measurement is due."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.next = state["next"]


def next_multiple(steps: int, interval: int) -> int:
    """The next multiple of an interval."""
    return (steps // interval + 1) * interval
