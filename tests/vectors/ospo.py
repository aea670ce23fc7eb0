"""Adapter for ``ospo.json``: rewards, both advantages, the objective and the matching of a fleet."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.collect.fleet.matching import assign
from rheostat.credit.fleet_advantages import FleetAdvantage, fairness
from rheostat.learner.fleet_updates import discounted_reward
from rheostat.methods.control.ospo import OSPO
from rheostat.objectives.clipping import Clip
from rheostat.objectives.dispatch import dispatch_loss
from rheostat.policies.control.dispatch_policy import FLOOR, shares
from rheostat.tasks.fleet.city import Prices
from tests.vectors.tools import Unsupported, gradients, integer, leaf, tensor

DIRECTIONS = {0: "both", 1: "from-reference", 2: "from-policy"}
FORMS = {1: "one-step", 2: "to-go"}
GROUPS = {1: "minute", 2: "episode"}


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name == "reward_function":
        return reward(inputs, params)
    if name == "one_step_group_advantage_with_fairness_term":
        return one_step(inputs, params)
    if name.startswith("grpo_process"):
        return process(inputs, params)
    if name.startswith("policy_loss"):
        return loss(inputs, params)
    if name.startswith("bipartite_matching"):
        return matching(inputs)
    raise Unsupported(f"the adapter does not know a case {name!r}")


def reward(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    prices = Prices(*params["beta"], limit=params["threshold_min"])
    columns = (np.array(inputs[name]) for name in ("direct_m", "pickup_min", "n_overtime", "time_add_min"))
    return {"reward": prices(*columns)}


def one_step(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Minute by minute, as vehicles are told it, and all at once, as it is learned from; both must agree."""
    paid = [[0.0 if each is None else each for each in row] for row in inputs["reward"]]
    accepted = torch.tensor([[each is not None for each in row] for row in inputs["reward"]])
    rewards, before = tensor(paid), tensor(inputs["totals_before"])
    after = before + rewards
    fair = -params["fairness_coef"] * fairness(before, after)
    worth = FleetAdvantage()
    told = np.stack([worth.of_minute(rewards[t : t + 1], accepted[t : t + 1], fair[t : t + 1])[0] for t in range(len(rewards))])
    minute, vehicle = accepted.nonzero(as_tuple=True)
    learned, _ = worth.advantages(rewards[accepted], minute, vehicle, torch.full_like(minute, -1), fair[minute])
    assert torch.equal(learned, torch.from_numpy(told)[accepted])
    minutes = [type("Minute", (), {"minute": t, "reward": rewards[t : t + 1].numpy()}) for t in range(len(rewards))]
    return {
        "advantage": [[value if yes else None for value, yes in zip(*row, strict=True)] for row in zip(told, accepted, strict=True)],
        "totals_after": after,
        "discounted_total": discounted_reward(minutes, params["gamma"]),
    }


def process(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The punishment is the term that the release subtracts."""
    kind = params["punishment_type"]
    worth = FleetAdvantage(
        FORMS[params["reward_type"]], GROUPS[params["norm_type"]], -1.0 if kind == 1 else 0.0, kind == 2, gamma=params["gamma"]
    )
    columns = (integer(inputs[name]) for name in ("time_step", "worker_id"))
    found, _ = worth.advantages(tensor(inputs["reward"]), *columns, tensor(inputs["delta_t"]), tensor(inputs["punishment"]))
    return {"target": found}


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Rows of different numbers of orders, padded to one table."""
    assert params["prob_floor"] == FLOOR
    leaves = [leaf(row) for row in inputs["logits"]]
    width = max(map(len, leaves))
    is_open = torch.tensor([[place < len(row) for place in range(width)] for row in leaves])

    def padded(rows: list[Tensor]) -> Tensor:
        return torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])

    low, high = params["eps"], params["eps"] * params["ceil_rate"]
    assert OSPO().update.clip == Clip(low, round(high, 12))
    found = dispatch_loss(
        shares(padded(leaves), is_open),
        shares(padded([tensor(row) for row in inputs["ref_logits"]]), is_open),
        is_open,
        integer(inputs["action"]),
        tensor(inputs["behaviour_prob"]).log(),
        tensor(inputs["advantage"]),
        clip=Clip(low, high),
        beta=params["beta"],
        entropy_coefficient=params["alpha"],
        direction=DIRECTIONS[params["kl_mode"]],  # type: ignore[arg-type]
    )
    return {
        "loss": found.loss,
        "policy_loss": found.policy,
        "kl": found.distance,
        "neg_entropy": -found.entropy,
        "grad_logits": [each.tolist() for each in gradients(found.loss, *leaves)],
    }


def matching(inputs: dict[str, Any]) -> dict[str, Any]:
    value = np.array(inputs["value"])
    found = assign(value)
    return {
        "assignment": [int(order) if order >= 0 else None for order in found],
        "total": sum(value[vehicle, order] for vehicle, order in enumerate(found) if order >= 0),
    }
