"""Golden vectors of the control baselines: returns, PPO and A2C, V-trace and Retrace, and the losses of off-policy and offline control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.mixing import interleave
from rheostat.credit.returns import gae, retrace, trace_coefficient, vtrace
from rheostat.learner.actor_critic_updates import Critics, Entropy, WeightedImitation
from rheostat.learner.conservative_critics import Penalty
from rheostat.learner.implicit import ImplicitCritics
from rheostat.learner.twin_critics import TwinCritics
from rheostat.masking import aggregate, standardise
from rheostat.methods.control.a2c import A2C
from rheostat.methods.control.awac import AWAC
from rheostat.methods.control.cql import CQL
from rheostat.methods.control.iql import IQL
from rheostat.methods.control.ppo import PPO
from rheostat.methods.control.rlpd import RLPD
from rheostat.methods.control.sac import SAC
from rheostat.methods.control.td3_bc import TD3BC
from rheostat.objectives.action_weights import AdvantageWeights, ImitationWeights
from rheostat.objectives.actor import smoothed_action
from rheostat.objectives.control_terms import ClippedSurrogate
from rheostat.objectives.temporal_difference import critic_loss, min_over_critics, td_target
from rheostat.objectives.value import value_loss
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.squashed import SquashedGaussian
from rheostat.trajectories import Transitions
from tests.vectors.control_methods import Drawn, Recorded, around, clipped_losses, learned, objective_of, parts_of, rows_of, step_of
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
    policy, _ = clipped_losses(
        objective_of(PPO(objective=ClippedSurrogate(clip))),
        logp,
        value,
        old_logp=tensor(inputs["old_log_prob"]),
        advantage=adv,
        target=tensor(inputs["returns"]),
        old_value=tensor(inputs["old_values"]),
    )
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
    policy, critic = clipped_losses(
        objective_of(A2C()), logp, value, old_logp=logp.detach(), advantage=adv, target=tensor(inputs["returns"]), old_value=value.detach()
    )
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
    """SAC's gradient step; the temperature before its step is in all of its losses."""
    q, q_pi = critics(inputs, "q1", "q2"), critics(inputs, "q1_pi", "q2_pi")
    log_prob, log_alpha = rows(inputs["log_prob_pi"]).requires_grad_(), leaf(inputs["log_alpha"])
    models = {
        "policy": Recorded(Drawn(rows(inputs["next_log_prob"])), Drawn(log_prob)),
        "target critics": Recorded(critics(inputs, "q1_target_next", "q2_target_next")),
        "critics": Recorded(q, q_pi),
        "temperature": Recorded(log=log_alpha, value=log_alpha.exp().item()),
    }
    method = SAC(critics=Critics(scale=0.5), entropy=Entropy(target=params["target_entropy"], form="log"))
    batch = learned(method, models, rows_of(rows(inputs["rewards"]), discounts(inputs, params)))
    critic, actor, temperature = (models[name].loss for name in ("critics", "policy", "temperature"))
    grad_q = gradients(critic, q)[0]
    grad_log_prob, grad_q_pi, none = gradients(actor, log_prob, q_pi, log_alpha)
    assert not none.any()
    return {
        "target": column(batch.columns["target"]),
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
    """TD3+BC's gradient step; the first critic is linear in the action, and the target's action has no noise."""
    q, action = critics(inputs, "q1_data", "q2_data"), leaf(inputs["pi_actions"])
    weight, offset = tensor(inputs["critic_action_weight"]), rows(inputs["q1_data"])
    models = {
        "policy": Recorded(action),
        "target policy": Recorded(action.detach()),
        "critics": Recorded(q, lambda seen, taken: ((taken @ weight).squeeze(-1) + offset).unsqueeze(0)),
        "target critics": Recorded(critics(inputs, "q1_target_next", "q2_target_next")),
    }
    method = TD3BC(networks=TwinCritics(target_noise=0.0, policy_delay=1), alpha=params["alpha"])
    learned(method, models, rows_of(rows(inputs["rewards"]), discounts(inputs, params), tensor(inputs["data_actions"])))
    critic, actor = models["critics"].loss, models["policy"].loss
    grad_q = gradients(critic, q)[0]
    return {
        "critic_loss": critic,
        "actor_loss": actor,
        "grad_q1_data": column(grad_q[0]),
        "grad_q2_data": column(grad_q[1]),
        "grad_pi_actions": gradients(actor, action)[0],
    }


def iql_step(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """IQL's gradient step as CORL has it: the mean over critics, and the advantage from before the step of V."""
    q, value = critics(inputs, "q1", "q2"), leaf(inputs["v"])
    mean, log_std = leaf(inputs["mu"]), leaf(inputs["log_std"])
    models = {
        "policy": Recorded(Gaussian(mean, log_std)),
        "critics": Recorded(q),
        "target critics": Recorded(tensor(inputs["q_target_min"]).unsqueeze(0)),
        "value": Recorded(value, tensor(inputs["v_next"]), value),
    }
    method = IQL(critics=ImplicitCritics(expectile=params["expectile"]), weights=ImitationWeights(params["beta"], params["exp_adv_max"]))
    learned(method, models, rows_of(rows(inputs["rewards"]), discounts(inputs, params), tensor(inputs["actions"])))
    value_error, critic, actor = (models[name].loss for name in ("value", "critics", "policy"))
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
    """AWAC's imitation, weighted by the advantage over one action of the policy."""
    logp = rows(inputs["log_prob_data"]).requires_grad_()
    models = {
        "policy": Recorded(Drawn(logp)),
        "critics": Recorded(critics(inputs, "q1_pi", "q2_pi"), critics(inputs, "q1_data", "q2_data")),
    }
    (imitation,) = parts_of(AWAC(weights=AdvantageWeights(params["lambda"], cap=params["exp_adv_max"])), WeightedImitation)
    imitation.step(around(models), rows_of(logp.detach()))
    loss = models["policy"].loss
    return {"actor_loss": loss, "grad_log_prob": column(gradients(loss, logp)[0])}


def cql_critic(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Temporal differences and the penalty of CQL's critics; the codes sum over samples where the paper takes the mean."""
    q = critics(inputs, "q1_data", "q2_data")
    drawn = [critics(inputs, f"q1_{name}", f"q2_{name}") for name in ("rand", "current", "next")]
    importance, count = params["importance_sample"], drawn[0].shape[-1]
    densities = [tensor(inputs[name]).T if importance else torch.zeros(count, q.shape[1]) for name in ("logp_current", "logp_next")]
    shape = (q.shape[1], params["action_dim"] if importance else 1)
    policies = [Drawn(each, torch.zeros(count, *shape), mean=torch.zeros(shape)) for each in densities]
    others = torch.cat(drawn, -1)
    models = {
        "policy": Recorded(Drawn(torch.zeros(q.shape[1])), *policies),
        "critics": Recorded(q, of_many=lambda seen, actions: others),
        "target critics": Recorded(critics(inputs, "q1_target_next", "q2_target_next")),
        "temperature": Recorded(value=1.0),
    }
    form: Any = {"form": "importance", "sum_over_actions": True} if importance else {"form": "plain"}
    method = CQL(penalty=Penalty(params["cql_alpha"], actions=count, temperature=params["temp"], **form))
    step, context = step_of(method), around(models)
    batch = rows_of(rows(inputs["rewards"]), discounts(inputs, params))
    for annotate in step.credit:
        batch = annotate(context, batch)
    step.updates[0].step(context, batch)
    loss, gap = models["critics"].loss, method.penalty.gap(q, others, batch.columns["log density"])
    grad_data, *grad_drawn = gradients(loss, q, *drawn)
    return {
        "qf_loss": loss,
        "qf1_td_loss": critic_loss(q[:1], batch.columns["target"]),
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
    """RLPD's gradient step: ten critics in the actor, two of them in the target."""
    q, q_pi, log_prob = leaf(inputs["qs"]), leaf(inputs["qs_pi"]), leaf(inputs["log_prob_pi"])
    slow = tensor(inputs["target_next_qs"])
    models = {
        "policy": Recorded(Drawn(tensor(inputs["next_log_prob"])), Drawn(log_prob)),
        "critics": Recorded(q, q_pi),
        "target critics": Recorded(slow[inputs["subset"]], networks=len(slow)),
        "temperature": Recorded(value=params["temperature"]),
    }
    method = RLPD(
        critics=Critics(len(q), over="mean"),
        target_critics=len(inputs["subset"]),
        policy_delay=1,
        entropy=Entropy(params["temperature"]),
        entropy_in_backup=params["backup_entropy"],
    )
    batch = learned(method, models, rows_of(tensor(inputs["rewards"]), params["gamma"] * tensor(inputs["masks"])))
    critic, actor = models["critics"].loss, models["policy"].loss
    grad_log_prob, grad_q_pi = gradients(actor, log_prob, q_pi)
    return {
        "target": batch.columns["target"],
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
