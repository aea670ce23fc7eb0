"""Golden vectors of PROPS: the behaviour loss, ROS, exact sampling error, and the target's PPO step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.credit.returns import gae
from rheostat.masking import standardise
from rheostat.methods.control.props import PROPS
from rheostat.objectives.behaviour import BehaviourLoss, advantage_weight, behaviour_loss, ros_loss, ros_tabular_step
from rheostat.objectives.control_terms import ClippedSurrogate
from rheostat.objectives.kl import categorical_kl, gaussian_kl
from rheostat.objectives.sampling_error import empirical_policy, sampling_error_tabular
from rheostat.policies.control.distributions import Categorical, Gaussian
from tests.vectors.control_methods import clipped_losses, objective_of
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name == "gae_over_reordered_buffer":
        return plain(reordered_gae(inputs, params))
    if name == "target_ppo_minibatch":
        return plain(target_ppo(inputs, params))
    if name == "ros_tabular_softmax_step":
        theta, gradient = ros_tabular_step(
            tensor(inputs["theta_target"]), integer(inputs["states"]), integer(inputs["actions"]), lr=params["lr"]
        )
        return plain({"theta_behaviour": theta, "avg_grad": gradient})
    if name == "sampling_error_tabular_exact":
        counts = integer(inputs["counts"])
        return plain({"sampling_error": sampling_error_tabular(tensor(inputs["pi_target"]), counts), "pi_mle": empirical_policy(counts)})
    if "mu_target" in inputs:
        return plain(gaussian(inputs, params))
    if "logits_target" in inputs:
        return plain(discrete(name, inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def gaussian(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The continuous update on one minibatch; the oldest rows are left out of the loss, not of the reported KL."""
    mean, log_std, actions = leaf(inputs["mu_new"]), leaf(inputs["logstd_new"]), tensor(inputs["actions"])
    target = Gaussian(tensor(inputs["mu_target"]), tensor(inputs["logstd_target"]))
    first = params["exclude_oldest_rows"]

    def loss(rows: slice) -> BehaviourLoss:
        behaviour = Gaussian(mean[rows], log_std[rows])
        theta = Gaussian(target.mean[rows], target.log_std[rows])
        logp, target_logp = behaviour.log_prob(actions[rows]), theta.log_prob(actions[rows])
        weight = advantage_weight(tensor(inputs["advantages"])[rows]) if params["advantage_weighted"] else None
        kl = gaussian_kl(behaviour.mean, behaviour.log_std, theta.mean, theta.log_std)
        return behaviour_loss(logp, target_logp, kl, clip=params["clip"], kl_coef=params["lambda"], weight=weight)

    if params.get("ros_sign_bug"):
        raise Unsupported("the ROS arm of the first release is ros_loss(as_released=True), not a behaviour loss")
    step, everything = loss(slice(first, None)), loss(slice(None))
    outputs: dict[str, Any] = {"updated": not step.exceeds(params["target_kl"]), "approx_kl_all_rows": everything.approx_kl}
    if not outputs["updated"]:
        return outputs | {"grad_mu_new": torch.zeros_like(mean), "grad_logstd_new": torch.zeros_like(log_std)}
    grad_mean, grad_log_std = gradients(step.loss, mean, log_std)
    return outputs | {
        "grad_mu_new": grad_mean,
        "grad_logstd_new": grad_log_std,
        "clip_loss": step.clip_loss,
        "kl_reg": step.kl,
        "loss": step.loss,
        "approx_kl": step.approx_kl,
        "clipfrac": step.outside_fraction,
    }


def discrete(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The discrete updates: clipped ratio alone, with the exact KL of the paper, or ROS's ratio."""
    logits, target_logits, actions = leaf(inputs["logits_new"]), tensor(inputs["logits_target"]), integer(inputs["actions"])
    logp, target_logp = Categorical(logits).log_prob(actions), Categorical(target_logits).log_prob(actions)
    if "ros" in name:
        loss = ros_loss(logp, target_logp)
        approx_kl = behaviour_loss(logp, target_logp, clip=0.2, kl_coef=0.0).approx_kl  # neither the clip nor the loss enters it
        return {"loss": loss, "approx_kl": approx_kl, "grad_logits_new": gradients(loss, logits)[0]}
    kl = categorical_kl(target_logits, logits) if params["lambda"] else None
    step = behaviour_loss(logp, target_logp, kl, clip=params["clip"], kl_coef=params["lambda"])
    return {
        "loss": step.loss,
        "kl": step.kl,
        "approx_kl": step.approx_kl,
        "clipfrac": step.outside_fraction,
        "grad_logits_new": gradients(step.loss, logits)[0],
    }


def target_ppo(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """PPO on one minibatch with CleanRL's value loss."""
    mean, log_std, value = leaf(inputs["mu_new"]), leaf(inputs["logstd_new"]), leaf(inputs["v_new"])
    actions, advantages = tensor(inputs["actions"]), tensor(inputs["advantages"])
    old = Gaussian(tensor(inputs["mu_old"]), tensor(inputs["logstd_old"]))
    new = Gaussian(mean, log_std)
    if params["norm_adv"]:
        advantages = standardise(advantages, eps=params["adv_eps"])
    policy, critic = clipped_losses(
        objective_of(PROPS(objective=ClippedSurrogate(params["clip"], value=params["clip_vloss"]))),
        new.log_prob(actions),
        value,
        old_logp=old.log_prob(actions),
        advantage=advantages,
        target=tensor(inputs["returns"]),
        old_value=tensor(inputs["v_old"]),
    )
    entropy = new.entropy().mean()
    total = policy.loss - params["ent_coef"] * entropy + params["vf_coef"] * critic
    grad_mean, grad_log_std, grad_value = gradients(total, mean, log_std, value)
    return {
        "policy_loss": policy.loss,
        "value_loss": critic,
        "entropy": entropy,
        "total": total,
        "grad_mu_new": grad_mean,
        "grad_logstd_new": grad_log_std,
        "grad_v_new": grad_value,
    }


def reordered_gae(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Tensor]:
    """GAE over the time-ordered buffer, with flags that mark the first observation of an episode."""
    value = tensor(inputs["values_current_critic"])
    terminated = torch.cat([boolean(inputs["done_at_step"])[1:], boolean([inputs["next_done"]])])
    next_value = torch.cat([value[1:], tensor([inputs["next_value"]])])
    advantage, target = gae(
        tensor(inputs["rewards"]),
        value,
        next_value,
        terminated,
        torch.zeros_like(terminated),
        gamma=params["gamma"],
        lam=params["gae_lambda"],
    )
    return {"advantages": advantage, "returns": target}
