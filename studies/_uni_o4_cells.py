"""Cells of the Uni-O4 study: data, what its arms share, the clipped steps of an arm, the phase in the world, and a world with a fork."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rheostat.buffers.offline import OfflineData
from rheostat.experiments.studies.training import DATA
from rheostat.learner import control
from rheostat.learner.stages import Stages
from rheostat.streams import Streams
from rheostat.tasks.control.environments import Environments, make
from rheostat.training import checkpoint
from rheostat.training.datasets import make_dataset
from rheostat.training.settings import configure
from rheostat.training.teachers import TeacherRecipe
from rheostat.trajectories import Transitions
from studies import _control

TASK = "Pendulum-v1"
TEACHER = {"gamma": 0.9, "learning_rate": 1e-3}
"""Settings of PPO that learn this task."""
STATE = "state"
"""Folder and name of the checkpoint that a cell leaves."""


# --- data --------------------------------------------------------------------------------------------------------------------------------


def gather(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: a data set, from ``kind``, ``steps``, ``seed`` and ``teacher`` (steps of its training; 0: uniform actions stand in).

    Returns:
        The mean return of its whole episodes, and the returns that count as 0 and 100 percent.
    """
    if arguments["teacher"]:
        recipe = TeacherRecipe(arguments["teacher"], TEACHER, evaluation_episodes=10)
        data = make_dataset(TASK, arguments["kind"], arguments["steps"], arguments["seed"], teacher=recipe)
    else:
        data = make_dataset(TASK, "random", arguments["steps"], arguments["seed"], reference=False)
        data.reference = (-1200.0, -150.0)
    assert data.reference is not None
    data.save(place / DATA)
    return {"return": float(data.whole_returns.mean()), "reference": list(data.reference), "digest": data.digest}


class Fork(gymnasium.Env):
    """One step: something stands straight ahead, and either side of it is free; ``o`` in (-1, 1) says which side pays a little more.

    Reward ``1 - ((|a| - 0.6) / 0.2)^2``, at least -1, plus 0.3 o sign(a).
    """

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.seen = self.np_random.uniform(-1.0, 1.0)
        return np.array([self.seen], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = fork_reward(torch.tensor([self.seen]), torch.tensor([float(np.asarray(action).reshape(()))]))
        return np.array([self.seen], np.float32), float(reward), True, False, {}


def fork_reward(seen: Tensor, action: Tensor) -> Tensor:
    """Of observations and actions ``[n]``."""
    return (1 - ((action.abs() - 0.6) / 0.2).square()).clamp(min=-1.0) + 0.3 * seen * action.sign()


def fork_data(steps: int, seed: int) -> OfflineData:
    """Either side with equal chance, 0.6 away from the middle with deviation 0.1, whatever is observed."""
    draw = Streams(seed)["fork"]
    seen = 2 * torch.rand(steps, generator=draw) - 1
    side = 2.0 * (torch.rand(steps, generator=draw) < 0.5) - 1
    action = (0.6 * side + 0.1 * torch.randn(steps, generator=draw)).clamp(-1.0, 1.0)
    yes, no = torch.ones(steps, dtype=torch.bool), torch.zeros(steps, dtype=torch.bool)
    rows = Transitions(
        observation=seen.unsqueeze(-1),
        action=action.unsqueeze(-1),
        reward=fork_reward(seen, action),
        next_observation=seen.unsqueeze(-1),
        terminated=yes,
        truncated=no,
        sampler_logp=torch.full((steps,), math.nan),
        batch_size=[steps],
    )
    seen_by_policies = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    return OfflineData(rows, yes, observation_space=seen_by_policies, action_space=Fork.action_space, task="Fork", reference=(-1.0, 1.15))


# --- arms --------------------------------------------------------------------------------------------------------------------------------


def build(arguments: dict[str, Any], place: Path, *, online: int = 0) -> Stages:
    """The method on the cell's data; those of the fork are made on the spot, ``rows`` of them."""
    fork = arguments["task"] == "fork"
    data = fork_data(arguments["rows"], arguments["seed"]) if fork else OfflineData.load(place.parent / arguments["data"] / DATA)
    config = configure("uni-o4", arguments["config"])
    streams, steps = Streams(arguments["seed"]), arguments["steps"]
    found = control.build(config, "uni-o4", world(arguments), streams, steps, online_steps=online, offline=data)
    assert isinstance(found, Stages)
    return found


def world(arguments: dict[str, Any]) -> Callable[[int, int], Environments]:
    """The cell's task."""
    if arguments["task"] != "fork":
        return _control.world(arguments)
    return lambda count, seed: make(Fork, num_envs=count, seed=seed)


def prepare(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: critics, model and clones, which all gates share; leaves its state.

    Returns:
        ``final``: mean return of the clone with the best AM-Q; ``coverage``: mean log-likelihood of the data's actions under the member
        that likes each best, nats; ``spread``: mean deviation of the members' mean actions.
    """
    method = build(arguments, place)
    while method.stage.name != "policies":
        method.turn()
    checkpoint.write(place / STATE, STATE, method.state_dict())
    rows = method.context.stores["data as read"].rows[:5_000]
    with torch.no_grad():
        policies = method.context.models["members"].policies.distribution(rows.observation)
        coverage = policies.log_prob(rows.action).amax(0).mean()
    spread = policies.mean.std(0).mean() if len(policies.mean) > 1 else torch.zeros(())
    final = measured(method, arguments)
    method.close()
    return {"final": final, "coverage": round(float(coverage), 5), "spread": round(float(spread), 5)}


def improve(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: the clipped steps of one gate, from what :func:`prepare` left; leaves its state.

    Returns:
        ``final``: mean return of the chosen member; ``curve``: of the member with the best last score on the way; ``replaced``: how often
        an old policy followed; ``scores`` and ``chosen``.
    """
    method = resumed(arguments, place)
    begin = method.steps
    rows = [(0, measured(method, arguments, arguments["looks"]))]
    while not method.context.acting:
        method.turn()
        done = method.steps - begin
        if done % arguments["look_every"] == 0 and not method.context.acting:
            rows.append((done, measured(method, arguments, arguments["looks"])))
    final = measured(method, arguments)
    rows.append((method.steps - begin, final))
    checkpoint.write(place / STATE, STATE, method.state_dict())
    method.close()
    members = method.context.models["members"]
    return {
        "final": final,
        "curve": {"steps": [float(step) for step, _ in rows], "evaluation_return": [value for _, value in rows]},
        "replaced": members.replaced,
        "scores": [round(float(score), 4) for score in members.scores],
        "chosen": method.context.models["policy"].chosen,
    }


def online(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: environment steps, from what :func:`improve` left (``state``) or by PPO from scratch.

    Returns:
        ``curve``: measurements before the first step and then every so many; ``final``.
    """
    budget = arguments["budget"]
    if "state" in arguments:
        method: Any = resumed(arguments, place, online=budget)
    else:
        method = _control.build("ppo", arguments["config"], arguments, steps=budget)
    begin, rows, due = method.steps, [(0, measured(method, arguments, arguments["looks"]))], arguments["look_every"]
    while method.steps - begin < budget:
        method.turn()
        done = method.steps - begin
        if done >= due or done >= budget:
            due = (done // arguments["look_every"] + 1) * arguments["look_every"]
            rows.append((done, measured(method, arguments, arguments["looks"])))
    method.close()
    columns = {"steps": [float(step) for step, _ in rows], "evaluation_return": [value for _, value in rows]}
    return {"final": rows[-1][1], "curve": columns}


def resumed(arguments: dict[str, Any], place: Path, *, online: int = 0) -> Stages:
    """The method with the state that another cell left."""
    method = build(arguments, place, online=online)
    method.load_state_dict(checkpoint.read(place.parent / arguments["state"] / STATE / STATE))
    return method


def measured(method: Any, arguments: dict[str, Any], episodes: int | None = None) -> float:
    """Mean return of deterministic episodes."""
    return round(method.evaluate(episodes or arguments["episodes"])["evaluation_return"], 4)


Seeds = dict[int, float]


def percent(value: float, data: dict[str, Any]) -> float:
    """A return as a score."""
    random, expert = data["reference"]
    return 100 * (value - random) / (expert - random)


def differences(a: Seeds, b: Seeds) -> Seeds:
    """A minus B by seed."""
    return {seed: a[seed] - b[seed] for seed in a}
