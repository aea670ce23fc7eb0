"""Probe environments: tiny tasks whose right values and actions are known in closed form, each isolating one part of a method.

| probe | part it isolates | value V(o) | action |
|---|---|---|---|
| ConstantReward | the critic's loss and optimiser | 1 | any |
| RewardFromObservation | the path from observation to critic | o, for o = -1 or 1 | any |
| DelayedReward | discounting and bootstrapping | gamma at o = 0, 1 at o = 1 | any |
| RewardFromAction | the sign of the policy's update | 1 | 1; continuous 0.5 |
| RewardFromBoth | the policy's use of the observation | 1 | 1 if o > 0 else 0; continuous o / 2 |
| TimeLimit | bootstrapping at time limits | 1 / (1 - gamma) | any |

The first five follow the probes of rejax's tests (after Andy Jones' "Debugging RL"); the time limit is Rheostat's own: reward 1 for ever,
cut every 5 steps. A method that treats the cut as a termination finds the much smaller 1 / (1 - gamma (1 - 1/5)), because the observation
does not tell the time.

Discrete probes have two actions. Continuous ones have one action in [-1, 1] and pay 1 - (distance to the right action)^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError, unknown
from rheostat.tasks.control.registration import PROBES

Observation = np.ndarray


class Probe(gymnasium.Env):
    """Base class of the probes: one number as observation, discrete or continuous actions, episodes of one step."""

    isolates: str

    def __init__(self, continuous: bool = False) -> None:
        self.continuous = continuous
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space: gymnasium.Space = (
            gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else gymnasium.spaces.Discrete(2)
        )
        self.seen = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.seen = self._first()
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        reward = self._reward(float(np.asarray(action).reshape(())))
        terminated = self._advance()
        return self._observe(), reward, terminated, False, {}

    def _observe(self) -> Observation:
        return np.array([self.seen], dtype=np.float32)

    def _first(self) -> float:
        """The first observation of an episode."""
        return 0.0

    def _reward(self, action: float) -> float:
        return 1.0

    def _advance(self) -> bool:
        """Take a step; True if the episode terminates."""
        return True

    def save_state(self) -> dict[str, Any]:
        """What :meth:`load_state` needs; the generator is saved by the adapter."""
        return {"seen": self.seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class ConstantReward(Probe):
    """Reward 1, one step."""

    isolates = "the critic's loss and optimiser"


class RewardFromObservation(Probe):
    """The reward is the observation, -1 or 1 at random."""

    isolates = "the path from the observation to the critic"

    def _first(self) -> float:
        return float(2 * self.np_random.integers(2) - 1)

    def _reward(self, action: float) -> float:
        return self.seen


class DelayedReward(Probe):
    """Two steps; the observation tells which, the reward comes at the end."""

    isolates = "discounting and bootstrapping"

    def _reward(self, action: float) -> float:
        return self.seen

    def _advance(self) -> bool:
        first, self.seen = self.seen == 0.0, 1.0
        return not first


class RewardFromAction(Probe):
    """Reward 1 for action 1, -1 for action 0; continuous: best at 0.5."""

    isolates = "the sign of the policy's update"

    def _reward(self, action: float) -> float:
        return 1.0 - (action - 0.5) ** 2 if self.continuous else 2.0 * action - 1.0


class RewardFromBoth(RewardFromObservation):
    """Reward 1 for the action that matches the sign of the observation, -1 otherwise; continuous: best at half the observation."""

    isolates = "the policy's use of the observation"

    def _reward(self, action: float) -> float:
        return 1.0 - (action - 0.5 * self.seen) ** 2 if self.continuous else self.seen * (2.0 * action - 1.0)


class TimeLimit(Probe):
    """Reward 1 at every step, for ever; a wrapper cuts the episode every 5 steps."""

    isolates = "bootstrapping at time limits"

    def _advance(self) -> bool:
        return False


CLASSES: dict[str, type[Probe]] = {
    probe.__name__: probe for probe in (ConstantReward, RewardFromObservation, DelayedReward, RewardFromAction, RewardFromBoth, TimeLimit)
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The right answers of a probe at ``n`` observations."""

    observation: Tensor  # float32 [n, 1]
    value: Tensor  # float32 [n], of the best policy
    action: Tensor | None  # int64 [n], or float32 [n, 1] if continuous; None where every action is as good


def task_id(name: str, continuous: bool = False) -> str:
    """The Gymnasium id of a probe, for :func:`rheostat.tasks.control.make`."""
    return f"rheostat/Probe-{name}{'-Continuous' if continuous else ''}-v0"


def expected(name: str, gamma: float, continuous: bool = False) -> Answer:
    """The right answers of the probe called ``name``.

    Raises:
        RheostatError: unknown probe, or a discount outside [0, 1) where the value would not be finite.
    """
    if name not in CLASSES:
        raise unknown("probe", name, CLASSES)
    if not 0.0 <= gamma < 1.0:
        raise RheostatError(f"The discount gamma={gamma} must lie in [0, 1).")
    seen = {"DelayedReward": [0.0, 1.0], "RewardFromObservation": [-1.0, 1.0], "RewardFromBoth": [-1.0, 1.0]}.get(name, [0.0])
    value = {
        "RewardFromObservation": [-1.0, 1.0],
        "DelayedReward": [gamma, 1.0],
        "RewardFromBoth": [1.0, 1.0],
        "TimeLimit": [1.0 / (1.0 - gamma)],
    }.get(name, [1.0])
    action = None
    if name == "RewardFromAction":
        action = torch.tensor([[0.5]]) if continuous else torch.tensor([1])
    elif name == "RewardFromBoth":
        action = torch.tensor([[-0.5], [0.5]]) if continuous else torch.tensor([0, 1])
    return Answer(torch.tensor(seen)[:, None], torch.tensor(value), action)


def value_if_cuts_were_deaths(gamma: float) -> float:
    """The value of the TimeLimit probe under the wrong rule."""
    limit = PROBES["TimeLimit"]
    assert limit is not None
    return 1.0 / (1.0 - gamma * (1.0 - 1.0 / limit))


def check(
    name: str,
    *,
    gamma: float,
    continuous: bool = False,
    value: Callable[[Tensor], Tensor] | None = None,
    act: Callable[[Tensor], Tensor] | None = None,
    value_tolerance: float = 0.1,
    action_tolerance: float = 0.15,
) -> list[str]:
    """The faults of a method trained on a probe; an empty list without any.

    Args:
        name: the probe.
        gamma: the discount the method was trained with.
        continuous: the continuous version.
        value: observations ``[n, 1]`` to state values ``[n]`` (for action values, those of the best action); not checked if None.
        act: observations ``[n, 1]`` to the policy's most likely actions, ``[n]`` or ``[n, 1]``; not checked if None.
        value_tolerance: allowed error of a value, relative to the larger of 1 and its size.
        action_tolerance: allowed distance of a continuous action.
    """
    answer = expected(name, gamma, continuous)
    isolates = CLASSES[name].isolates
    wrong = []
    if value is not None:
        with torch.no_grad():
            found = value(answer.observation)
        if found.shape != answer.value.shape:
            raise RheostatError(f"value(observation) must return shape {list(answer.value.shape)}, not {list(found.shape)}.")
        error = (found - answer.value).abs() / answer.value.abs().clamp(min=1.0)
        if not bool((error <= value_tolerance).all()):
            sentence = f"{name}: values {_round(found)} at observations {_round(answer.observation)} should be {_round(answer.value)}"
            deaths = value_if_cuts_were_deaths(gamma)
            if name == "TimeLimit" and abs(float(found[0]) - deaths) <= value_tolerance * deaths:
                wrong.append(f"{sentence}: this is what taking time limits for deaths gives.")
            else:
                wrong.append(f"{sentence}: look at {isolates}.")
    if act is not None and answer.action is not None:
        with torch.no_grad():
            chosen = act(answer.observation)
        if chosen.shape != answer.action.shape:
            raise RheostatError(f"act(observation) must return shape {list(answer.action.shape)}, not {list(chosen.shape)}.")
        if not bool(((chosen - answer.action).abs() <= (action_tolerance if continuous else 0)).all()):
            sentence = f"{name}: actions {_round(chosen)} at observations {_round(answer.observation)} should be {_round(answer.action)}"
            wrong.append(f"{sentence}: look at {isolates}.")
    return wrong


def _round(tensor: Tensor) -> list[float]:
    return [round(number, 3) for number in tensor.flatten().tolist()]
