"""The protocol of a method: its answers to the four questions, as the four steps of the one training loop.

    collect()  WHO ACTS?                  -> fresh trajectories
    retain()   WHAT IS KEPT?              -> the trajectories to learn from
    credit()   WHAT IS IT WORTH?          -> the same, with advantages and targets
    improve()  HOW DOES THE POLICY MOVE?  -> what happened, as numbers

Methods with a replay draw from it in ``retain`` and pass on :class:`~rheostat.trajectories.Transitions`. Numbers may come once in a while
only: a turn that has none leaves no row in the log.

Data flow one way; nothing flows back except the improved policy. Everything a method remembers is in ``state_dict``: saving it is
resuming it.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from rheostat.parts import Metrics, NonFinite
from rheostat.trajectories import Trajectories

__all__ = ["Method", "Metrics", "NonFinite", "iterate"]


@runtime_checkable
class Method(Protocol):
    """What the loop asks of a method."""

    config: Any

    @property
    def unit(self) -> str:
        """What the budget counts: "environment steps", "updates", "generated tokens"."""
        ...

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        ...

    @property
    def updates(self) -> int:
        """How many times the policy has been improved: the version of the next data."""
        ...

    def collect(self) -> Trajectories: ...
    def retain(self, fresh: Trajectories) -> Any: ...
    def credit(self, kept: Any) -> Any: ...
    def improve(self, batch: Any) -> Metrics: ...

    def cut(self) -> None:
        """Called at every scheduled checkpoint, before saving: bring what cannot be saved into a state that can be made again."""
        ...

    def evaluate(self, episodes: int) -> Metrics:
        """Measure the policy with random streams of its own; never changes training."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


def iterate(method: Method) -> Metrics:
    """One turn of the training loop."""
    return method.improve(method.credit(method.retain(method.collect())))
