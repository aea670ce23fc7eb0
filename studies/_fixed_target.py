"""Sampling error of data collected for a policy that does not move.

The target is frozen the way the authors of PROPS freeze it: its learning rate is 0. Everything else is the method as it is: its collector,
its window, its behaviour updates. Normalisation would move the target too, so the statistics of observations are frozen as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from gymnasium.spaces import Discrete
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rheostat.collect.control.normalise import RunningStatistics
from rheostat.objectives.sampling_error import sampling_error_tabular, visit_counts
from rheostat.policies.control.actor_critic import ActorCritic, TabularSoftmax
from rheostat.policies.control.neural_sampling_error import neural_sampling_error
from rheostat.streams import derive_seed
from studies._control import build, world

FROZEN: dict[str, Any] = {
    "learning_rate": 0.0,
    "anneal": False,
    "epochs": 1,
    "minibatches": 1,
    "target_kl": None,
    "normalise_rewards": False,
}
"""No step of the target changes it."""

TARGET = "target.safetensors"


class FrozenStatistics(RunningStatistics):
    """How a target sees its observations: a part of it, which no longer changes."""

    def update(self, batch: Tensor, mask: Tensor | None = None) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Target:
    """A policy that does not move, and how it sees observations (None: as they are)."""

    policy: TabularSoftmax | ActorCritic
    statistics: FrozenStatistics | None = None


def sampling_error(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: collect with one method for one frozen target, and measure the window on the way.

    Arguments: ``method``, ``config``, ``task``, ``options`` of the environment, ``target`` (see :func:`fixed_target`), ``seed``, ``at``
    (steps, multiples of the method's block), ``epochs`` of the neural fit.

    Returns:
        ``sampling_error`` in nats per step and ``rows`` in the window, both per entry of ``at``.
    """
    target = fixed_target(arguments, place.parent)
    config = {**arguments["config"], **FROZEN, "normalise_observations": target.statistics is not None}
    method = build(arguments["method"], config, arguments, steps=max(arguments["at"]), policy=target.policy)
    if target.statistics is not None:
        method.context.stores["observations"] = target.statistics
    vector = method.context.models["policy"].parameters.vector
    before = vector.detach().clone()
    block = method.composition.innermost.turn_steps
    errors: list[float] = []
    rows: list[int] = []
    for step in range(block, max(arguments["at"]) + 1, block):
        kept = method.retain(method.collect())
        if step in arguments["at"]:
            window = kept.rows.transitions()
            observation, generator = method.context.see(window.observation), method.context.streams["sampling error"]
            errors.append(error_of(target.policy, observation, window.action, generator, arguments.get("epochs", 0)))
            rows.append(len(window))
        method.improve(method.credit(kept))
    method.close()
    assert torch.equal(before, vector), "the target moved"
    return {"sampling_error": errors, "rows": rows}


def error_of(policy: TabularSoftmax | ActorCritic, observation: Tensor, action: Tensor, generator: torch.Generator, epochs: int) -> float:
    """Exact for tables, by maximum likelihood of the head for networks."""
    if isinstance(policy, TabularSoftmax):
        counts = visit_counts(observation.argmax(-1), action, shape=(policy.logits.shape[0], policy.logits.shape[1]))
        return sampling_error_tabular(policy.logits.detach().double().softmax(-1), counts).item()
    return neural_sampling_error(policy, observation, action, generator=generator, epochs=epochs)


def fixed_target(arguments: dict[str, Any], folder: Path) -> Target:
    """The frozen target.

    - ``{"kind": "tabular", "scale": s}``: logits N(0, s^2), new for every seed;
    - ``{"kind": "random", "warm_up": steps}``: a network at its initialisation, new for every seed; observation statistics from that many
      steps of its own;
    - ``{"kind": "trained", "cell": key}``: what :func:`train_target` stored, the same for every seed.
    """
    target, seed = arguments["target"], arguments["seed"]
    if target["kind"] == "tabular":
        environments = world(arguments)(1, 0)
        (states,), actions = environments.observation_space.shape, environments.action_space
        environments.close()
        assert isinstance(actions, Discrete)
        generator = torch.Generator().manual_seed(derive_seed(seed, "target"))
        return Target(TabularSoftmax(states, int(actions.n), scale=target["scale"], generator=generator))
    if target["kind"] == "random":
        frozen = {**FROZEN, "normalise_observations": True, "num_envs": 1, "batch_steps": target["warm_up"]}
        method = build("ppo", frozen, arguments | {"seed": derive_seed(seed, "target")}, steps=target["warm_up"])
        method.turn()
    else:
        stored = load_file(folder / target["cell"] / TARGET)
        method = build("ppo", {"num_envs": 1}, arguments, steps=1)
        method.context.stores["observations"].load_state_dict({name: stored.pop(name) for name in ("mean", "variance", "count")})
        cast(nn.Module, method.policy).load_state_dict(stored)
    method.close()
    seen = method.context.stores["observations"]
    statistics = FrozenStatistics(seen.shape)
    statistics.load_state_dict(seen.state_dict())
    assert isinstance(method.policy, ActorCritic)
    return Target(method.policy, statistics)


def train_target(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: train a target with PPO (``task``, ``config``, ``steps``, ``seed``), store it, and return its deterministic evaluation."""
    method = build("ppo", arguments["config"], arguments, steps=arguments["steps"])
    while method.steps < arguments["steps"]:
        method.turn()
    statistics = method.context.stores["observations"]
    stored = {"mean": statistics.mean, "variance": statistics.variance, "count": torch.tensor(statistics.count)}
    save_file(cast(nn.Module, method.policy).state_dict() | stored, place / TARGET)
    evaluation = method.evaluate(20)
    method.close()
    return evaluation
