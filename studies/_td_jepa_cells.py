"""Cells of the TD-JEPA study: data without rewards, and what a finished run earns for rewards that it never saw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rheostat.experiments.studies.training import DATA
from rheostat.learner.zero_shot import returns_for
from rheostat.tasks.control.state_rewards import StateReward
from rheostat.training.datasets import make_dataset

MAZE, CHEETAH = "point-maze", "CheetahRun-v1"
GOALS = [(x, y) for x in (-0.8, 0.8) for y in (-0.8, -0.3, 0.3, 0.8)]
"""Two in every room, which episodes that begin elsewhere reach through doors alone."""
LENGTH = {MAZE: 50, CHEETAH: 1000}
"""Steps of an episode."""
NEAR = 0.2
SPEED = 8
"""Where the horizontal speed stands in the observation of the cheetah, after eight positions."""
FAST = 2.0
"""Speed that counts as 1; the task itself asks for 10."""
Seen = NDArray[np.float32]


def near(goal: tuple[float, float], observation: Seen) -> Seen:
    """1 near a place, else 0."""
    return (np.linalg.norm(observation[:, :2] - np.array(goal, np.float32), axis=1) <= NEAR).astype(np.float32)


def along(axis: int, sign: float, observation: Seen) -> Seen:
    """From 0 at one border to 1 at the other."""
    return 0.5 * (1 + sign * observation[:, axis])


def speed(sign: float, observation: Seen) -> Seen:
    """From 0 at rest to 1 at a speed of :data:`FAST` in one direction."""
    return np.clip(sign * observation[:, SPEED] / FAST, 0, 1)


def rewards_of(task: str) -> dict[str, Callable[[Seen], Seen]]:
    """Rewards between 0 and 1, by name."""
    if task == CHEETAH:
        return {"forward": partial(speed, 1.0), "backward": partial(speed, -1.0)}
    goals: dict[str, Callable[[Seen], Seen]] = {f"near {goal}": partial(near, goal) for goal in GOALS}
    return goals | {f"along {axis} {sign:+g}": partial(along, axis, sign) for axis in (0, 1) for sign in (1.0, -1.0)}


def gather(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: a data set that no reward had a part in."""
    task, seed, steps = arguments["task"], arguments["seed"], arguments["steps"]
    data = make_dataset(task, "rnd" if task == CHEETAH else "random", steps, seed, reference=False)
    data.save(place / DATA)
    seen = data.transitions.next_observation
    reward = {name: float(each(seen.numpy()).mean()) for name, each in rewards_of(task).items()}
    return {"steps": len(data), "digest": data.digest, "rewards": reward}


def look(run: Any) -> dict[str, Any]:
    """Mean reward per step of every reward by the policy of its task, and the mean over rewards; as many episodes as an evaluation has."""
    context, task = run.method.context, run.settings.task
    found = {}
    for name, reward in rewards_of(task).items():
        returns = returns_for(context, StateReward(reward, name), run.settings.evaluation_episodes)
        found[name] = sum(returns) / len(returns) / LENGTH[task]
    return {"rewards": found, "mean": sum(found.values()) / len(found)}
