"""Golden vectors of PMOE: its soft update with critics that are products, the density of the mixture, and the loss of its PPO."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.masking import standardise
from rheostat.objectives.actor import soft_actor_loss, temperature_loss
from rheostat.objectives.clipping import Clip
from rheostat.objectives.mixture_of_experts import best_expert, frequency_loss
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.temporal_difference import critic_loss, min_over_critics, soft_value, td_target
from rheostat.objectives.value import value_loss
from rheostat.policies.control.mixtures import MixtureOfGaussians, of_expert
from tests.vectors.tools import Unsupported, gradients, integer, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("sac_update"):
        return plain(soft_update(inputs, params))
    if name.startswith("gmm_log_prob"):
        return plain(density(inputs))
    if name == "ppo_total_loss":
        return plain(clipped_update(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def column(x: Tensor) -> Tensor:
    """``[B]`` as the ``[B, 1]`` of the recorded outputs."""
    return x.unsqueeze(-1)


def soft_update(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One update: targets, critics, the best expert and the mixture's weights, temperature; rewards standardised in the batch."""
    logits, actions, log_prob = (leaf(inputs[key]) for key in ("mix_logits", "actions_per_expert", "log_prob_per_expert"))
    q1, q2, log_alpha = (leaf(inputs[key]) for key in ("q1", "q2", "log_alpha"))
    temperature = log_alpha.detach().exp()
    reward = params["reward_scale"] * standardise(tensor(inputs["rewards"]), eps=1e-6)
    next_log_prob = of_expert(tensor(inputs["next_log_prob_per_expert"]).squeeze(-1), integer(inputs["next_expert_index"]))
    following = min_over_critics(torch.stack([tensor(inputs[f"q{k}_target_next"]).squeeze(-1) for k in (1, 2)]))
    target = td_target(reward, soft_value(following, next_log_prob, temperature), params["gamma"] * (1 - tensor(inputs["dones"])))
    loss = critic_loss(torch.stack([q1, q2]).squeeze(-1), target)
    grad_q1, grad_q2 = gradients(loss, q1, q2)

    weights = torch.stack([tensor(inputs[f"q{k}_action_weight"]) for k in (1, 2)])
    value = (weights @ actions.unsqueeze(-1)).squeeze(-1).amin(-1)  # the recorded critics: [B, K]
    best = best_expert(value)
    chosen = of_expert(log_prob.squeeze(-1), best)
    policy = soft_actor_loss(of_expert(value, best), chosen, temperature) + frequency_loss(logits, best)
    grad_logits, grad_actions, grad_log_prob = gradients(policy, logits, actions, log_prob)
    heat = temperature_loss(log_alpha, chosen, params["target_entropy"], form="log")
    return {
        "best_expert": best,
        "reward_normalised": reward,
        "target": column(target),
        "grad_mix_logits": grad_logits,
        "grad_actions": grad_actions,
        "grad_log_prob": grad_log_prob,
        "grad_q1": grad_q1,
        "grad_q2": grad_q2,
        "grad_log_alpha": gradients(heat, log_alpha)[0],
    }


def density(inputs: dict[str, Any]) -> dict[str, Any]:
    """The mixture's density with its derivatives by hand; the deviation is shared by all rows, whose derivatives are summed."""
    mixture = MixtureOfGaussians(tensor(inputs["mix_logits"]), tensor(inputs["mu"]), tensor(inputs["log_std"])[0])
    actions = tensor(inputs["actions"])
    log_prob, gradient = mixture.log_prob_and_gradient(actions)
    rows, experts, dimensions = mixture.mean.shape
    to_logits, to_mean, to_log_std = gradient.split([experts, experts * dimensions, experts * dimensions], -1)
    return {
        "log_prob": log_prob,
        "responsibilities": mixture.responsibilities(actions),
        "grad_mix_logits": to_logits,
        "grad_mu": to_mean.view(rows, experts, dimensions),
        "grad_log_std": to_log_std.sum(0).view(1, experts, dimensions),
    }


def clipped_update(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The loss of a minibatch: mixture's weights, clipped ratio of the mixture's density, critic, and the extra state-action critic."""
    logits, mean, log_std = (leaf(inputs[key]) for key in ("mix_logits", "mu", "log_std"))
    value, q = leaf(inputs["values"]), leaf(inputs["q_of_data_action"])
    old_value, advantage = tensor(inputs["old_values"]), tensor(inputs["advantages"])
    target, clip = old_value + advantage, params["clip"]
    log_prob = MixtureOfGaussians(logits, mean, log_std[0]).log_prob(tensor(inputs["actions"]))
    policy = policy_gradient(log_prob, standardise(advantage), denominator_logp=tensor(inputs["old_log_prob"]), clip=Clip(clip, clip)).loss
    mixture = frequency_loss(logits, best_expert(tensor(inputs["q_of_expert_samples"])))
    critic = value_loss(value, target, old_value=old_value, clip=clip)
    judge = critic_loss(q.unsqueeze(0), target)
    total = mixture + policy + params["vf_coef"] * critic + judge
    grad_logits, grad_mean, grad_log_std, grad_q, grad_v = gradients(total, logits, mean, log_std, q, value)
    return {
        "mix_loss": mixture,
        "policy_loss": policy,
        "value_loss": critic,
        "q_loss": judge,
        "total": total,
        "grad_mix_logits": grad_logits,
        "grad_mu": grad_mean,
        "grad_log_std": grad_log_std,
        "grad_q": grad_q,
        "grad_v": grad_v,
    }
