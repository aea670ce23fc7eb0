"""Building a control method for a cell of a study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rheostat.learner import control
from rheostat.learner.learner import Learner
from rheostat.streams import Streams
from rheostat.tasks.control.environments import Environments, make
from rheostat.training.settings import configure


def build(method: str, config: dict[str, Any], arguments: dict[str, Any], *, steps: int, policy: Any = None) -> Learner:
    """A method of the table on the task of the cell."""
    found = control.build(configure(method, config), method, world(arguments), Streams(arguments["seed"]), steps, policy=policy)
    assert isinstance(found, Learner)
    return found


def world(arguments: dict[str, Any]) -> Callable[[int, int], Environments]:
    """``(num_envs, seed) -> Environments`` of the cell's task."""

    def made(num_envs: int, seed: int) -> Environments:
        return make(arguments["task"], num_envs=num_envs, seed=seed, threads=1, **arguments.get("options", {}))

    return made
