"""Golden vectors of FamO2O: encoding, weights with and without the authors' broadcast, balance model, temperature, both maps."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.objectives.actor import deterministic_actor_loss, soft_actor_loss, temperature_loss
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.temporal_difference import min_over_critics
from rheostat.objectives.weights import family_weight
from rheostat.policies.control.balance import coefficient_of, sin_cos_encoding
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.squashed import SquashedGaussian
from tests.vectors.tools import Unsupported, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name == "sin_cos_encoding":
        return plain({"encoding": sin_cos_encoding(tensor(inputs["beta"])[:, 0], params["d"], params["n"])})
    if name.endswith("intended_per_sample"):
        return plain(universal(inputs, params, tensor(inputs["beta"]), broadcast=False))
    if name.startswith("iql_universal_actor"):
        beta = coefficient_of(tensor(inputs["balance_squashed_sample"]), *params["coefficient_range"])
        found = universal(inputs, params, beta[:, 0], broadcast=True)
        seen = torch.cat([tensor(inputs["observations"]), sin_cos_encoding(beta[:, 0])], -1)
        return plain(found | {"beta": beta, "policy_input": seen, "actor_loss_official_broadcast": found["actor_loss"]})
    if name == "iql_balance_model_loss":
        return plain(balance(inputs, params))
    if name == "balance_temperature_loss":
        log = leaf(inputs["log_temp"])
        loss = temperature_loss(log, -tensor([inputs["entropy"]]), params["target_entropy"])
        return plain({"loss": loss, "grad_log_temp": gradients(loss, log)[0]})
    if name == "cql_coefficient_mapping":
        squashed, (low, high) = tensor(inputs["tanh_sample"]), params["coefficient_range"]
        return plain(
            {"official_value": coefficient_of(squashed, low, high, released=True), "intended_value": coefficient_of(squashed, low, high)}
        )
    if name == "cql_universal_and_balance_loss":
        return plain(over_cql(inputs, params))
    raise Unsupported(f"unknown case {name}")


def universal(inputs: dict[str, Any], params: dict[str, Any], beta: torch.Tensor, *, broadcast: bool) -> dict[str, Any]:
    """The weighted likelihood of the universal model."""
    mean, log_std = leaf(inputs["mu"]), leaf(inputs["log_std"])
    best = min_over_critics(torch.stack([tensor(inputs["q1_target"]), tensor(inputs["q2_target"])]))
    weight = family_weight(best - tensor(inputs["v"]), beta, params["exp_clip"], broadcast=broadcast)
    loss = weighted_likelihood(Gaussian(mean, log_std).log_prob(tensor(inputs["data_actions"])), weight=weight)
    grad_mean, grad_log_std = gradients(loss, mean, log_std)
    return {"weights": weight, "actor_loss": loss, "grad_mu": grad_mean, "grad_log_std": grad_log_std}


def balance(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The balance model's loss through encoding, action and critics."""
    mean, log_std = leaf(inputs["h_mean"]), leaf(inputs["h_log_std"])
    squashed, log_prob = SquashedGaussian(mean, log_std).draw(tensor(inputs["eps"]))
    beta = coefficient_of(squashed, *params["coefficient_range"])
    action = (sin_cos_encoding(beta[:, 0]) @ tensor(inputs["enc_to_action"])).tanh() + 0.1 * tensor(inputs["action_eps"])
    q = min_over_critics((action @ tensor(inputs["action_to_q12"])).T)
    loss = soft_actor_loss(q, log_prob, params["temperature"])
    grad_mean, grad_log_std = gradients(loss, mean, log_std)
    return {
        "loss": loss,
        "beta": beta,
        "entropy": -log_prob.mean(),
        "q_min": q,
        "grad_h_mean": grad_mean,
        "grad_h_log_std": grad_log_std,
    }


def over_cql(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Both losses of the form over CQL."""
    log_prob, q = leaf(inputs["log_pi"]), min_over_critics(torch.stack([tensor(inputs["q1_pi"]), tensor(inputs["q2_pi"])])).requires_grad_()
    policy = soft_actor_loss(tensor(inputs["beta"]) * q, log_prob, params["alpha"])
    grad_log_prob, grad_q = gradients(policy, log_prob, q)
    return {
        "policy_loss": policy,
        "balance_loss": deterministic_actor_loss(q),
        "grad_log_pi": grad_log_prob,
        "grad_min_q_policy": grad_q,
    }
