"""When known environments end, as functions of the observation: a learned dynamics model does not predict it.

The rules are those of Gymnasium's MuJoCo environments of versions 4 and 5 with their default options, read off the observation (without the
horizontal position, as by default). An environment that changes ``healthy_z_range`` and the like terminates by other rules than these.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tasks.control.distractors import own_task

Ended = Callable[[Tensor], Tensor]
"""Raw observations ``[N, n]`` to bool ``[N]``: the environment has ended there."""


def _hopper(seen: Tensor) -> Tensor:
    return ~((seen[:, 0] > 0.7) & (seen[:, 1].abs() < 0.2) & (seen[:, 1:].abs() < 100.0).all(-1))


def _walker(seen: Tensor) -> Tensor:
    return ~((seen[:, 0] > 0.8) & (seen[:, 0] < 2.0) & (seen[:, 1].abs() < 1.0))


def _height(low: float, high: float) -> Ended:
    return lambda seen: ~((seen[:, 0] > low) & (seen[:, 0] < high) & seen.isfinite().all(-1))


def _pole(seen: Tensor) -> Tensor:
    return ~(seen.isfinite().all(-1) & (seen[:, 1].abs() <= 0.2))


def _double_pole(seen: Tensor) -> Tensor:
    """The tip is not above 1; both poles are 0.6 long, and the second angle is counted from the first."""
    sine, cosine = seen[:, 1:3], seen[:, 3:5]
    return 0.6 * (cosine[:, 0] + cosine.prod(-1) - sine.prod(-1)) <= 1.0


def _mountain_car(seen: Tensor) -> Tensor:
    return (seen[:, 0] >= 0.45) & (seen[:, 1] >= 0.0)


def _at_once(seen: Tensor) -> Tensor:
    return torch.ones(len(seen), dtype=torch.bool)


RULES: dict[str, Ended] = {
    r"Hopper-v[45]": _hopper,
    r"Walker2d-v[45]": _walker,
    r"Ant-v[45]": _height(0.2, 1.0),
    r"Humanoid-v[45]": _height(1.0, 2.0),
    r"InvertedPendulum-v[45]": _pole,
    r"InvertedDoublePendulum-v[45]": _double_pole,
    r"MountainCarContinuous-v0": _mountain_car,
    r"rheostat/Probe-(ConstantReward|RewardFromObservation|RewardFromAction|RewardFromBoth)(-Continuous)?-v0": _at_once,
}
"""Pattern of the task's id to the rule."""


ENDLESS = (
    r"Pendulum-v[01]",
    r"HalfCheetah-v[345]",
    r"Swimmer-v[345]",
    r"Reacher-v[245]",
    r"Pusher-v[245]",
    r"HumanoidStandup-v[245]",
    r"rheostat/Probe-TimeLimit(-Continuous)?-v0",
)
"""Patterns of tasks that only their time limit ends."""


def termination_of(task: str) -> Ended | None:
    """The rule by which a task ends; None for those that never end (Pendulum, HalfCheetah, Swimmer, ...) **and for all unknown ones**.

    Where an unknown environment does end, model rollouts continue past that end: keep them short.

    >>> termination_of("Pendulum-v1") is None
    True
    """
    name, distractors = _named(task)
    rule = next((rule for pattern, rule in RULES.items() if re.fullmatch(pattern, name)), None)
    if rule is None or not distractors:
        return rule
    own = rule
    return lambda seen: own(seen[:, :-distractors])


def known_termination_of(task: str) -> Ended:
    """The same, where a wrong rule would spoil what is learned: a task that never ends has a rule that says so, an unknown one none.

    Raises:
        RheostatError: it is not known when the task ends.
    """
    rule = termination_of(task)
    if rule is not None:
        return rule
    name, _ = _named(task)
    if not any(re.fullmatch(pattern, name) for pattern in ENDLESS):
        raise RheostatError(
            f"It is not known when {task} ends, and a model of its steps does not say so: choose imagined_end never if only a time limit "
            "ends its episodes, or use sac, which imagines none."
        )
    return never


def never(seen: Tensor) -> Tensor:
    """The rule of a task that never ends."""
    return torch.zeros(len(seen), dtype=torch.bool)


def _named(task: str) -> tuple[str, int]:
    """A task's id without its backend, and how many distractors stand behind its observation."""
    return own_task(task.removeprefix("gymnasium:").removeprefix("envpool:"))
