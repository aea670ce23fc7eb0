"""Building a control method for a cell of a study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rheostat.methods import table
from rheostat.methods.control.ppo import PPO
from rheostat.streams import Streams
from rheostat.tasks.control.environments import Environments, make
from rheostat.training.settings import configure


def build(method: str, config: dict[str, Any], arguments: dict[str, Any], *, steps: int, policy: Any = None) -> PPO:
    """A method of the table on the task of the cell."""
    return table.entry(method).load()(
        configure(method, config), world(arguments), Streams(arguments["seed"]), total_steps=steps, policy=policy
    )


def world(arguments: dict[str, Any]) -> Callable[[int, int], Environments]:
    """``(num_envs, seed) -> Environments`` of the cell's task."""

    def made(num_envs: int, seed: int) -> Environments:
        return make(arguments["task"], num_envs=num_envs, seed=seed, threads=1, **arguments.get("options", {}))

    return made
