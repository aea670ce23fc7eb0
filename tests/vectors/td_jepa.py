"""Golden vectors of TD-JEPA: the loss of both forms, the spread of predictors, the policies' loss, tasks of rewards, the fixed point."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.learner.zero_shot import one_sided_loss, two_sided_loss
from rheostat.objectives.latent_prediction import latent_target, moved_covariance, pessimistic, task_actor_loss, task_of_rewards
from tests.vectors.tools import Unsupported, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    for start, case in CASES.items():
        if name.startswith(start):
            return plain(case(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def asymmetric(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Both sides, of features and predictions that are given."""
    leaves = [leaf(inputs[name]) for name in ("phi_preds", "psi_preds", "phi", "psi")]
    discount, penalty = tensor(inputs["discount"])[:, 0], params["pessimism"]
    targets = [
        latent_target(tensor(inputs[f"target_{features}_next"]), tensor(inputs[f"target_{ahead}_preds_next"]), discount, penalty)
        for features, ahead in (("psi", "phi"), ("phi", "psi"))
    ]
    weights = params["phi_ortho"], params["psi_ortho"]
    loss, parts = two_sided_loss((leaves[0], leaves[1]), (targets[0], targets[1]), (leaves[2], leaves[3]), weights)
    names = ("grad_phi_preds", "grad_psi_preds", "grad_phi", "grad_psi")
    return {
        "total_loss": loss,
        "phi_td_loss": parts["state_loss"],
        "psi_td_loss": parts["task_loss"],
        "phi_orth": parts["state_orthonormality"],
        "psi_orth": parts["task_orthonormality"],
    } | dict(zip(names, gradients(loss, *leaves), strict=True))


def symmetric(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One linear encoder and linear predictors."""
    encoder, members = leaf(inputs["encoder"]), leaf(inputs["predictor"])
    z, phi = tensor(inputs["z"]), tensor(inputs["obs"]) @ encoder
    following = tensor(inputs["next_obs"]) @ tensor(inputs["target_encoder"])
    ahead = torch.cat([following, z, tensor(inputs["next_action"])], -1) @ tensor(inputs["target_predictor"])
    target = latent_target(following, ahead, tensor(inputs["discount"])[:, 0], params["pessimism"])
    predicted = torch.cat([phi, z, tensor(inputs["action"])], -1) @ members
    loss, parts = one_sided_loss(predicted, target, phi, params["phi_ortho"])
    grad_encoder, grad_predictor = gradients(loss, encoder, members)
    found = {"total_loss": loss, "td_loss": parts["state_loss"], "orth": parts["state_orthonormality"]}
    return found | {"grad_encoder": grad_encoder, "grad_predictor": grad_predictor}


def uncertainty(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Mean, spread and value of an ensemble."""
    members, penalty = tensor(inputs["preds"]), params["pessimism"]
    mean, value = pessimistic(members), pessimistic(members, penalty)
    return {"mean": mean, "uncertainty": (mean - value) / penalty, "value": value}


def actor(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The policies' loss, of linear predictors of actions."""
    action, near, z = leaf(inputs["actor_action"]), tensor(inputs["data_action"]), tensor(inputs["z"])
    values = (action @ tensor(inputs["predictor_weights"]) * z).sum(-1)
    imitation, penalty = params["bc_coeff"], params["actor_pessimism"]
    loss = task_actor_loss(values, action, near, imitation=imitation, penalty=penalty)
    apart = task_actor_loss(values, action, near, imitation=0.0, penalty=penalty)
    error = torch.zeros(1, dtype=torch.float64)
    if imitation:
        error = (loss - apart / values.abs().mean()) / imitation
    return {"actor_loss": loss, "q": -apart, "bc_error": error, "grad_action": gradients(loss, action)[0]}


def reward_inference(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The task of rewards, on the sphere and off it."""
    features, reward = tensor(inputs["psi_of_next_obs"]), tensor(inputs["reward"])[:, 0]
    found = [task_of_rewards(features, reward, normalise=normalise).unsqueeze(0) for normalise in (params["norm_z"], False)]
    return {"z": found[0], "z_unnormalised": found[1]}


def covariance(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A step of the running covariance."""
    return {"new_cov": moved_covariance(tensor(inputs["cov"]), tensor(inputs["psi"]), params["rate"])}


def fixed_point(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Predictions that no longer change when they are what their own targets are on average."""
    chances, features = tensor(inputs["P_pi"]), tensor(inputs["features"])
    found, discount = torch.zeros_like(features), torch.full((len(features),), params["gamma"], dtype=torch.float64)
    for _ in range(400):
        found = chances @ latent_target(features, found.unsqueeze(0), discount)
    return {"successor_features": found}


CASES: dict[str, Any] = {
    "asymmetric_update": asymmetric,
    "symmetric_update_linear_encoder": symmetric,
    "ensemble_uncertainty": uncertainty,
    "actor_loss_bc": actor,
    "reward_inference": reward_inference,
    "z_cov_ema": covariance,
    "fixed_point": fixed_point,
}
