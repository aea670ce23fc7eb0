"""Golden vectors of the control baselines: returns, PPO and A2C, V-trace and Retrace, and the losses of off-policy and offline control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.mixing import interleave
from rheostat.credit.returns import gae, retrace, trace_coefficient, vtrace
from rheostat.masking import aggregate, standardise
from rheostat.objectives.actor import behaviour_regularised_loss, smoothed_action, soft_actor_loss, temperature_loss
from rheostat.objectives.clipping import Clip, DetachedClip
from rheostat.objectives.conservative import conservative_gap, conservative_penalty, uniform_log_density
from rheostat.objectives.expectile import expectile_loss
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.temporal_difference import critic_loss, min_over_critics, soft_value, td_target
from rheostat.objectives.value import value_loss
from rheostat.objectives.weights import exponential_weight
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.squashed import SquashedGaussian
from rheostat.trajectories import Transitions
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
    for start, case in STEPS.items():
        if name.startswith(start):
            return plain(case(inputs, params))
    raise Unsupported("no such control baseline")


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
    policy = policy_gradient(logp, adv, denominator_logp=tensor(inputs["old_log_prob"]), clip=Clip(clip, clip))
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
        "clip_fraction": policy.outside_fraction,
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
    policy = policy_gradient(logp, adv, denominator_logp=None, clip=DetachedClip())
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


def rows(x: Any) -> Tensor:
    """``[B, 1]`` or ``[B]`` numbers as ``[B]``."""
    return tensor(x).reshape(-1)


def critics(inputs: dict[str, Any], *names: str) -> Tensor:
    """Values of several critics as ``[K, B]``, or ``[K, B, n]`` where every row has n actions; their gradient is wanted."""
    values = torch.stack([tensor(inputs[name]) for name in names])
    return (values.squeeze(-1) if values.shape[-1] == 1 else values).requires_grad_()


def discounts(inputs: dict[str, Any], params: dict[str, Any]) -> Tensor:
    """gamma, 0 where the episode is done."""
    return params["gamma"] * (1 - rows(inputs["dones"]))


def column(x: Tensor) -> Tensor:
    """``[B]`` as ``[B, 1]``."""
    return x.unsqueeze(-1)


def tanh_gaussian(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A reparameterised action and its log-probability in both forms."""
    mean, log_std, noise = leaf(inputs["mu"]), leaf(inputs["log_std"]), tensor(inputs["eps"])
    policy = SquashedGaussian(mean, log_std)
    action, approximate = policy.draw(noise, stability=params["eps_stability"])
    grad_mean, grad_log_std = gradients(approximate.sum(), mean, log_std)
    return {
        "action": action,
        "log_prob_eps": approximate,
        "log_prob_exact": policy.draw(noise)[1],
        "grad_mu": grad_mean,
        "grad_log_std": grad_log_std,
    }


def sac_step(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The three losses of one step; the temperature before its step is in all of them."""
    q, q_pi = critics(inputs, "q1", "q2"), critics(inputs, "q1_pi", "q2_pi")
    log_prob, log_alpha = rows(inputs["log_prob_pi"]).requires_grad_(), leaf(inputs["log_alpha"])
    alpha = log_alpha.exp()
    next_value = soft_value(min_over_critics(critics(inputs, "q1_target_next", "q2_target_next")), rows(inputs["next_log_prob"]), alpha)
    target = td_target(rows(inputs["rewards"]), next_value, discounts(inputs, params))
    critic = critic_loss(q, target, scale=0.5)
    actor = soft_actor_loss(min_over_critics(q_pi), log_prob, alpha)
    temperature = temperature_loss(log_alpha, log_prob, params["target_entropy"], form="log")
    grad_q = gradients(critic, q)[0]
    grad_log_prob, grad_q_pi, none = gradients(actor, log_prob, q_pi, log_alpha)
    assert not none.any()
    return {
        "target": column(target),
        "critic_loss": critic,
        "actor_loss": actor,
        "ent_coef_loss": temperature,
        "grad_q1": column(grad_q[0]),
        "grad_q2": column(grad_q[1]),
        "grad_log_prob_pi": column(grad_log_prob),
        "grad_q1_pi": column(grad_q_pi[0]),
        "grad_q2_pi": column(grad_q_pi[1]),
        "grad_log_alpha": gradients(temperature, log_alpha)[0],
    }


def td3_target(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The smoothed action (the noise has its scale already) and the target."""
    bound = params["action_bound"]
    action = smoothed_action(
        tensor(inputs["next_action_from_target_actor"]),
        tensor(inputs["raw_noise"]),
        scale=1.0,
        clip=params["noise_clip"],
        low=-bound,
        high=bound,
    )
    target = td_target(rows(inputs["rewards"]), min_over_critics(critics(inputs, "q1_next", "q2_next")), discounts(inputs, params))
    return {"smoothed_next_action": action, "target": column(target)}


def td3_bc_step(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Critics and actor; the first critic is linear in the action."""
    q, action = critics(inputs, "q1_data", "q2_data"), leaf(inputs["pi_actions"])
    target = td_target(
        rows(inputs["rewards"]), min_over_critics(critics(inputs, "q1_target_next", "q2_target_next")), discounts(inputs, params)
    )
    critic = critic_loss(q, target)
    value = (action @ tensor(inputs["critic_action_weight"])).squeeze(-1) + rows(inputs["q1_data"])
    actor = behaviour_regularised_loss(value, action, tensor(inputs["data_actions"]), alpha=params["alpha"])
    grad_q = gradients(critic, q)[0]
    return {
        "critic_loss": critic,
        "actor_loss": actor,
        "grad_q1_data": column(grad_q[0]),
        "grad_q2_data": column(grad_q[1]),
        "grad_pi_actions": gradients(actor, action)[0],
    }


def iql_step(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """CORL's step: the mean over critics, and the advantage from before the step of V."""
    q, value, best = critics(inputs, "q1", "q2"), leaf(inputs["v"]), tensor(inputs["q_target_min"])
    mean, log_std = leaf(inputs["mu"]), leaf(inputs["log_std"])
    value_error = expectile_loss(value, best, params["expectile"])
    target = td_target(rows(inputs["rewards"]), tensor(inputs["v_next"]), discounts(inputs, params))
    critic = critic_loss(q, target, critics="mean")
    logp = Gaussian(mean, log_std).log_prob(tensor(inputs["actions"]))
    actor = weighted_likelihood(logp, weight=exponential_weight(best - value, params["beta"], params["exp_adv_max"]))
    grad_q = gradients(critic, q)[0]
    grad_mean, grad_log_std, none = gradients(actor, mean, log_std, value)
    assert not none.any()
    return {
        "value_loss": value_error,
        "q_loss": critic,
        "actor_loss": actor,
        "grad_v": gradients(value_error, value)[0],
        "grad_q1": grad_q[0],
        "grad_q2": grad_q[1],
        "grad_mu": grad_mean,
        "grad_log_std": grad_log_std,
    }


def awac_actor(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Imitation weighted by the advantage over one action of the policy."""
    logp = rows(inputs["log_prob_data"]).requires_grad_()
    advantage = min_over_critics(critics(inputs, "q1_data", "q2_data")) - min_over_critics(critics(inputs, "q1_pi", "q2_pi"))
    loss = weighted_likelihood(logp, weight=exponential_weight(advantage, 1 / params["lambda"], params["exp_adv_max"]))
    return {"actor_loss": loss, "grad_log_prob": column(gradients(loss, logp)[0])}


def cql_critic(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Temporal differences and the penalty of both critics; the codes sum over samples where the paper takes the mean."""
    q = critics(inputs, "q1_data", "q2_data")
    drawn = [critics(inputs, f"q1_{name}", f"q2_{name}") for name in ("rand", "current", "next")]
    target = td_target(
        rows(inputs["rewards"]), min_over_critics(critics(inputs, "q1_target_next", "q2_target_next")), discounts(inputs, params)
    )
    density, importance = None, params["importance_sample"]
    if importance:
        bound = torch.ones(params["action_dim"], dtype=torch.float64)
        current = tensor(inputs["logp_current"])
        density = torch.cat([uniform_log_density(-bound, bound).expand_as(current), current, tensor(inputs["logp_next"])], -1)
    gap = conservative_gap(
        q, torch.cat(drawn, -1), density, form="importance" if importance else "plain", temperature=params["temp"], average=False
    )
    loss = critic_loss(q, target) + conservative_penalty(gap, alpha=params["cql_alpha"])
    grad_data, *grad_drawn = gradients(loss, q, *drawn)
    return {
        "qf_loss": loss,
        "qf1_td_loss": critic_loss(q[:1], target),
        "cql_qf1_diff": aggregate(gap[0], None),
        "cql_qf2_diff": aggregate(gap[1], None),
        "grad_q1_data": grad_data[0],
        "grad_q1_rand": grad_drawn[0][0],
        "grad_q1_current": grad_drawn[1][0],
        "grad_q1_next": grad_drawn[2][0],
    }


def rlpd_combine(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Even rows offline, odd rows online."""
    offline, online = (transitions(observation=tensor(inputs[name]["x"])) for name in ("offline", "online"))
    return {"combined": {"x": interleave(offline, online).observation}}


def transitions(observation: Tensor) -> Transitions:
    """Rows of which only the observation matters."""
    nothing = torch.zeros(len(observation))
    return Transitions(
        action=nothing,
        reward=nothing,
        terminated=nothing.bool(),
        truncated=nothing.bool(),
        sampler_logp=nothing,
        observation=observation,
        batch_size=[len(observation)],
    )


def rlpd_losses(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Ten critics in the actor, two of them in the target."""
    q, q_pi, log_prob = leaf(inputs["qs"]), leaf(inputs["qs_pi"]), leaf(inputs["log_prob_pi"])
    next_value = min_over_critics(tensor(inputs["target_next_qs"]), subset=inputs["subset"])
    if params["backup_entropy"]:
        next_value = soft_value(next_value, tensor(inputs["next_log_prob"]), params["temperature"])
    target = td_target(tensor(inputs["rewards"]), next_value, params["gamma"] * tensor(inputs["masks"]))
    critic = critic_loss(q, target, critics="mean")
    actor = soft_actor_loss(q_pi.mean(0), log_prob, params["temperature"])
    grad_log_prob, grad_q_pi = gradients(actor, log_prob, q_pi)
    return {
        "target": target,
        "critic_loss": critic,
        "actor_loss": actor,
        "grad_qs": gradients(critic, q)[0],
        "grad_log_prob_pi": grad_log_prob,
        "grad_qs_pi": grad_q_pi,
    }


def fitted_q_evaluation(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One critic at the evaluated policy's actions, with Huber's error."""
    q = leaf(inputs["q"])
    next_value = tensor(inputs["q_target_next"]).gather(-1, integer(inputs["next_policy_actions"])).squeeze(-1)
    target = td_target(rows(inputs["rewards"]), next_value, params["gamma"] * (1 - rows(inputs["terminals"])))
    loss = critic_loss(q.gather(-1, integer(inputs["actions"])).T, target, huber=params["huber_delta"])
    return {"target": column(target), "loss": loss, "grad_q": gradients(loss, q)[0]}


STEPS: dict[str, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]] = {
    "tanh_gaussian_logprob": tanh_gaussian,
    "sac_sb3_step": sac_step,
    "td3_target": td3_target,
    "td3_bc_step": td3_bc_step,
    "iql_step": iql_step,
    "awac_actor": awac_actor,
    "cql_critic": cql_critic,
    "rlpd_combine": rlpd_combine,
    "rlpd_losses": rlpd_losses,
    "fqe_discrete": fitted_q_evaluation,
}
