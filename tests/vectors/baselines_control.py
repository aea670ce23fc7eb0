"""Golden vectors of the control baselines: returns, PPO and A2C, V-trace and Retrace."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.credit.returns import gae, retrace, trace_coefficient, vtrace
from rheostat.masking import aggregate, standardise
from rheostat.objectives.limits import Clip, DetachedClip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.value import value_loss
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name == "gae_sb3":
        return plain(episode_start_gae(inputs, params))
    if name == "gae_term_trunc":
        return plain(successor_gae(inputs, params))
    if name.startswith("ppo_value_loss"):
        value = leaf(inputs["new_values"])
        loss = value_loss(value, tensor(inputs["returns"]), old_value=tensor(inputs["old_values"]), clip=params["clip"])
        return plain({"v_loss": loss, "grad_new_values": gradients(loss, value)[0]})
    if name.startswith("ppo_sb3"):
        return plain(sb3_ppo(inputs, params))
    if name.startswith("a2c_sb3"):
        return plain(sb3_a2c(inputs, params))
    if name.startswith("vtrace"):
        return plain(vtrace_case(inputs, params))
    if name.startswith("retrace"):
        return plain(retrace_case(inputs, params))
    raise Unsupported("the off-policy control methods are not here yet")


def episode_start_gae(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """[T, B] arrays with flags at the first step of an episode, as Stable-Baselines3 keeps them."""
    value, starts = tensor(inputs["values"]), boolean(inputs["episode_starts"])
    next_value = torch.cat([value[1:], tensor(inputs["last_values"])[None]])
    terminated = torch.cat([starts[1:], boolean(inputs["last_dones"])[None]])
    advantage, target = gae(
        tensor(inputs["rewards"]).T,
        value.T,
        next_value.T,
        terminated.T,
        torch.zeros_like(terminated.T),
        gamma=params["gamma"],
        lam=params["gae_lambda"],
    )
    return {"advantages": advantage.T, "returns": target.T}


def successor_gae(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """[T, B] arrays with the value of the true successor."""
    advantage, target = gae(
        tensor(inputs["rewards"]).T,
        tensor(inputs["values"]).T,
        tensor(inputs["next_values_true_final_obs"]).T,
        boolean(inputs["terminated"]).T,
        boolean(inputs["truncated"]).T,
        gamma=params["gamma"],
        lam=params["gae_lambda"],
    )
    return {"advantages": advantage.T, "returns": target.T}


def sb3_ppo(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One minibatch of PPO with Stable-Baselines3's value loss."""
    logp, value, entropy = leaf(inputs["log_prob"]), leaf(inputs["values"]), leaf(inputs["entropy"])
    adv = tensor(inputs["advantages"])
    if params["normalize_advantage"]:
        adv = standardise(adv)
    clip = params["clip_range"]
    policy = policy_gradient(logp, adv, denominator_logp=tensor(inputs["old_log_prob"]), limit=Clip(clip, clip))
    critic = value_loss(
        value,
        tensor(inputs["returns"]),
        old_value=tensor(inputs["old_values"]),
        clip=params["clip_range_vf"],
        pessimistic=False,
        scale=1.0,
    )
    entropy_loss = -aggregate(entropy, None)
    loss = policy.loss + params["ent_coef"] * entropy_loss + params["vf_coef"] * critic
    grad_logp, grad_value, grad_entropy = gradients(loss, logp, value, entropy)
    return {
        "policy_loss": policy.loss,
        "value_loss": critic,
        "entropy_loss": entropy_loss,
        "loss": loss,
        "approx_kl": policy.approx_kl,
        "clip_fraction": policy.clip_fraction,
        "grad_log_prob": grad_logp,
        "grad_values": grad_value,
        "grad_entropy": grad_entropy,
    }


def sb3_a2c(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The single step of A2C."""
    logp, value, entropy = leaf(inputs["log_prob"]), leaf(inputs["values"]), leaf(inputs["entropy"])
    adv = tensor(inputs["advantages"])
    if params["normalize_advantage"]:
        adv = standardise(adv)
    policy = policy_gradient(logp, adv, denominator_logp=None, limit=DetachedClip())
    critic = value_loss(value, tensor(inputs["returns"]), scale=1.0)
    loss = policy.loss - params["ent_coef"] * aggregate(entropy, None) + params["vf_coef"] * critic
    grad_logp, grad_value, grad_entropy = gradients(loss, logp, value, entropy)
    return {
        "policy_loss": policy.loss,
        "value_loss": critic,
        "grad_log_prob": grad_logp,
        "grad_values": grad_value,
        "grad_entropy": grad_entropy,
    }


def vtrace_case(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """V-trace with a discount per step, and the gradient of its value loss."""
    if params.get("c_clip", 1.0) is None:
        raise Unsupported("rlax always caps the trace coefficient")
    values, discount = leaf(inputs["values_0_to_T"]), tensor(inputs["discounts"])
    never = torch.zeros_like(discount, dtype=torch.bool)
    result = vtrace(
        tensor(inputs["rewards"]),
        values[:, :-1],
        values[:, 1:],
        tensor(inputs["log_rhos"]),
        never,
        never,
        gamma=discount,
        lam=params["lambda"],
        rho_clip=params["clip_rho"],
        c_clip=params["c_clip"],
        pg_rho_clip=params["clip_pg_rho"],
    )
    loss = value_loss(values[:, :-1], result.target, aggregate="constant", denominator=1)
    return {
        "errors": result.error,
        "pg_advantage": result.advantage,
        "q_estimate": result.q,
        "vs_targets": result.target,
        "grad_values_of_half_sum_sq_error": gradients(loss, values)[0],
    }


def retrace_case(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Retrace of discrete actions; the last step bootstraps from the expected value alone."""
    q_values, pi, actions = tensor(inputs["q_values"]), tensor(inputs["pi"]), integer(inputs["actions"]).unsqueeze(-1)
    discount = tensor(inputs["discounts"])
    never = torch.zeros_like(discount, dtype=torch.bool)
    q = q_values.gather(-1, actions).squeeze(-1)
    trace = trace_coefficient(
        pi.gather(-1, actions).squeeze(-1), tensor(inputs["mu_prob_of_action"]), lam=params["lambda"], eps=params["mu_eps"]
    )
    target = retrace(tensor(inputs["rewards"]), q[:, :-1], (pi * q_values).sum(-1)[:, 1:], trace[:, :-1], never, never, gamma=discount)
    return {"targets": target, "td_errors": target - q[:, :-1]}
