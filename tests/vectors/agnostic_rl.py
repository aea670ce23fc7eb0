"""Adapter for ``agnostic-rl.json``: classes of policies in layers, and conservative policy iteration."""

from __future__ import annotations

from typing import Any

import torch

from rheostat import tabular as lab
from tests.vectors.tools import integer, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> Any:
    """The outputs of one case."""
    if name.startswith("spanning_capacity"):
        return {"spanning_capacity": lab.spanning_capacity(integer(inputs["policies"]))}
    cases = {
        "psdp_population": psdp,
        "cpi_step": cpi,
        "core_policy_importance_value": core,
        "trajectory_tree_values": tree,
        "coverability_and_concentrability": coverage,
    }
    return plain(cases[name](inputs, params))


def layered(inputs: dict[str, Any]) -> lab.LayeredMDP:
    """The process of a case; where no rewards are given they are 0."""
    transition = tensor(inputs["P"])
    reward = tensor(inputs["R"]) if "R" in inputs else torch.zeros(transition.shape[:3], dtype=torch.float64)
    return lab.LayeredMDP(transition, reward, tensor(inputs["rho"]))


def psdp(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    mdp, policies = layered(inputs), integer(inputs["policy_class"])
    found = lab.psdp(mdp, policies, tensor(inputs["mu_per_layer"]))
    return {
        "chosen_index_from_last_layer_to_first": found.chosen,
        "policy": found.policy[0],
        "value_psdp": found.value,
        "value_of_class_members": lab.policy_values(mdp, policies),
    }


def cpi(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    policy, mu = tensor(inputs["pi"]), tensor(inputs["mu"])
    mdp = lab.DiscountedMDP(tensor(inputs["P"]), tensor(inputs["R"]), mu, params["gamma"])
    step = lab.cpi_step(mdp, policy, mu, reward_max=params["reward_max"])
    return {
        "occupancy": step.occupancy,
        "policy_advantage_normalised": step.advantage,
        "chosen_action_per_state": step.chosen,
        "alpha": step.step,
        "new_policy": step.policy,
        "V_old_mu": lab.policy_value(mdp, policy),
        "V_new_mu": lab.policy_value(mdp, step.policy),
        "guaranteed_gain": step.guaranteed,
        "normalised_gain": step.gain,
    }


def core(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    policies, target = integer(inputs["core_policies"]), integer([inputs["target_policy"]])
    episodes = lab.Episodes(integer(inputs["states"]), integer(inputs["actions"]), tensor(inputs["rewards"]))
    return {
        "weights": lab.core_weights(policies, target, episodes.state, episodes.action)[0],
        "value_estimate": lab.core_values(policies, target, episodes)[0],
    }


def tree(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One given tree is a deterministic process: its nodes are states, its branches moves, and every tree drawn from it is itself."""
    given = inputs["tree"]
    transition = torch.zeros(2, 3, 2, 3, dtype=torch.float64)
    transition[..., 0] = 1.0
    for branch, node in given["nx"].items():
        state, action = map(int, branch.split(","))
        transition[0, state, action] = torch.nn.functional.one_hot(torch.tensor(node), 3).double()
    reward = torch.zeros(2, 3, 2, dtype=torch.float64)
    reward[0, 0], reward[1, 1], reward[1, 2] = (tensor(given[f"rew_{node}"]) for node in ("root", "1", "2"))
    mdp = lab.LayeredMDP(transition, reward, tensor([1.0, 0.0, 0.0]))
    policies = torch.zeros(len(inputs["policy_list"]), 2, 3, dtype=torch.int64)
    for policy, (root, leaves) in zip(policies, inputs["policy_list"], strict=True):
        policy[0, 0], policy[1, 1:] = root, integer(leaves)
    return {"values": lab.trajectory_trees(mdp, policies, 1, generator=torch.Generator().manual_seed(0)).returns[0]}


def coverage(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    occupancies = lab.layer_occupancies(layered(inputs), integer(inputs["policy_class"]))
    return {
        "state_occupancies": occupancies,
        "coverability": lab.coverability(occupancies),
        "concentrability": lab.concentrability(occupancies, tensor(inputs["mu_per_layer"])),
    }
