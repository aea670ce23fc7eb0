"""Sampling error of data collected for a policy that does not move.

The target is frozen the way the authors of PROPS freeze it: its learning rate is 0. Everything else is the method as it is: its collector,
its window, its behaviour updates. Normalisation would move the target too, so the statistics of observations are frozen into the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from gymnasium.spaces import Discrete
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rheostat.collect.normalise import RunningStatistics
from rheostat.methods.method import iterate
from rheostat.objectives.sampling_error import sampling_error_tabular, visit_counts
from rheostat.policies.control import ActorCritic, TabularSoftmax
from rheostat.policies.sampling_error import neural_sampling_error
from rheostat.streams import derive_seed
from rheostat.tasks.control.environments import Environments
from rheostat.trajectories import Transitions
from studies._control import build, world

FROZEN: dict[str, Any] = {
    "learning_rate": 0.0,
    "anneal": False,
    "epochs": 1,
    "minibatches": 1,
    "target_kl": None,
    "normalise_observations": False,
    "normalise_rewards": False,
}
"""No step of the target changes it."""

TARGET = "target.safetensors"


class FixedTarget(ActorCritic):
    """A network with the statistics that normalise its observations built in, both for good.

    Args:
        network: whose parameters are taken over.
        statistics: how it was trained to see observations.
        environments: its world.
    """

    def __init__(self, network: nn.Module, statistics: RunningStatistics, environments: Environments) -> None:
        super().__init__(environments.observation_space, environments.action_space)
        self.load_state_dict(network.state_dict())
        self.statistics = statistics

    def features(self, observation: Tensor) -> Tensor:
        """``[N, F]`` from raw observations."""
        return super().features(self.statistics.normalise(observation))

    def value(self, observation: Tensor) -> Tensor:
        """``[N]`` from raw observations."""
        return super().value(self.statistics.normalise(observation))


def sampling_error(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: collect with one method for one frozen target, and measure the window on the way.

    Arguments: ``method``, ``config``, ``task``, ``options`` of the environment, ``target`` (see :func:`target_policy`), ``seed``, ``at``
    (steps, multiples of the method's block), ``epochs`` of the neural fit.

    Returns:
        ``sampling_error`` in nats per step and ``rows`` in the window, both per entry of ``at``.
    """
    policy = target_policy(arguments, place.parent)
    method = build(arguments["method"], {**arguments["config"], **FROZEN}, arguments, steps=max(arguments["at"]), policy=policy)
    before = method.parameters.vector.detach().clone()
    block = method.block_steps(method.config)
    errors: list[float] = []
    rows: list[int] = []
    for step in range(block, max(arguments["at"]) + 1, block):
        kept = method.retain(method.collect())
        if step in arguments["at"]:
            window = kept.transitions()
            errors.append(error_of(policy, window, method.streams["sampling error"], arguments.get("epochs", 0)))
            rows.append(len(window))
        method.improve(method.credit(kept))
    method.close()
    assert torch.equal(before, method.parameters.vector), "the target moved"
    return {"sampling_error": errors, "rows": rows}


def error_of(policy: TabularSoftmax | ActorCritic, window: Transitions, generator: torch.Generator, epochs: int) -> float:
    """Exact for tables, by maximum likelihood of the head for networks."""
    if isinstance(policy, TabularSoftmax):
        counts = visit_counts(window.observation.argmax(-1), window.action, shape=(policy.logits.shape[0], policy.logits.shape[1]))
        return sampling_error_tabular(policy.logits.detach().double().softmax(-1), counts).item()
    return neural_sampling_error(policy, window.observation, window.action, generator=generator, epochs=epochs)


def target_policy(arguments: dict[str, Any], folder: Path) -> TabularSoftmax | ActorCritic:
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
        return TabularSoftmax(states, int(actions.n), scale=target["scale"], generator=generator)
    if target["kind"] == "random":
        frozen = {**FROZEN, "normalise_observations": True, "num_envs": 1, "batch_steps": target["warm_up"]}
        method = build("ppo", frozen, arguments | {"seed": derive_seed(seed, "target")}, steps=target["warm_up"])
        iterate(method)
    else:
        stored = load_file(folder / target["cell"] / TARGET)
        method = build("ppo", {"num_envs": 1}, arguments, steps=1)
        method.observations.load_state_dict({name: stored.pop(name) for name in ("mean", "variance", "count")})
        cast(nn.Module, method.policy).load_state_dict(stored)
    fixed = FixedTarget(cast(nn.Module, method.policy), method.observations, method.collector.environments)
    method.close()
    return fixed


def train_target(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: train a target with PPO (``task``, ``config``, ``steps``, ``seed``), store it, and return its deterministic evaluation."""
    method = build("ppo", arguments["config"], arguments, steps=arguments["steps"])
    while method.steps < arguments["steps"]:
        iterate(method)
    statistics = method.observations
    stored = {"mean": statistics.mean, "variance": statistics.variance, "count": torch.tensor(statistics.count)}
    save_file(cast(nn.Module, method.policy).state_dict() | stored, place / TARGET)
    evaluation = method.evaluate(20)
    method.close()
    return evaluation
