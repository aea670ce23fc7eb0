"""Golden vectors of Uni-O4: both kinds of diverse cloning, the offline and the online surrogate, the IQL critics, and AM-Q."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.credit.am_q import am_q_score, improved
from rheostat.credit.returns import gae
from rheostat.learner.going_online import Online
from rheostat.masking import standardise
from rheostat.objectives.clipping import Clip
from rheostat.objectives.diverse_cloning import diverse_cloning_loss
from rheostat.objectives.expectile import expectile_loss
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.temporal_difference import critic_loss, min_over_critics, td_target
from rheostat.objectives.weights import sided_advantage
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.ensembles import soft_limits
from tests.vectors.control_methods import clipped_losses
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    for start, case in CASES.items():
        if name.startswith(start):
            return plain(case(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def rows(x: Any) -> Tensor:
    """``[B, 1]`` numbers as ``[B]``."""
    return tensor(x).reshape(-1)


def column(x: Tensor) -> Tensor:
    """``[B]`` as ``[B, 1]``."""
    return x.unsqueeze(-1)


def offline_surrogate(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One step of a member on actions drawn from its old policy."""
    mean, log_std, action = leaf(inputs["mu_new"]), leaf(inputs["logstd_new"]), tensor(inputs["actions_from_old"])
    old, new = Gaussian(tensor(inputs["mu_old"]), tensor(inputs["logstd_old"])), Gaussian(mean, log_std)
    advantage = sided_advantage(rows(inputs["q"]) - rows(inputs["v"]), params["omega"], eps=params["adv_eps"])
    clip = Clip(params["clip_ratio"], params["clip_ratio"])
    surrogate = policy_gradient(new.log_prob(action), advantage, denominator_logp=old.log_prob(action), clip=clip)
    loss = surrogate.loss - params["entropy_weight"] * new.entropy().mean()
    grad_mean, grad_log_std = gradients(loss, mean, log_std)
    return {"weighted_advantage": column(advantage), "loss": loss, "grad_mu_new": grad_mean, "grad_logstd_new": grad_log_std}


def equal_advantages(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Standardising what is all the same."""
    return {"advantage": column(sided_advantage(rows(inputs["q_minus_v"]), 0.5, eps=params["eps"]))}


def diverse_cloning(kind: Any) -> Any:
    """One member's loss; the others are there to be told apart from."""

    def case(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        mean, log_std = leaf(inputs["mu"]), leaf(inputs["log_std"])
        means, log_stds = (
            torch.cat([own.unsqueeze(0), tensor(inputs[others])]) for own, others in ((mean, "other_mu"), (log_std, "other_log_std"))
        )
        logp = Gaussian(means, log_stds).log_prob(tensor(inputs["actions"]))
        loss = diverse_cloning_loss(logp, means, log_stds, alpha=params["alpha"], kind=kind)[0]
        grad_mean, grad_log_std = gradients(loss, mean, log_std)
        return {"loss": loss, "log_prob": logp[0], "grad_mu": grad_mean, "grad_log_std": grad_log_std}

    return case


def iql_critics(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Both critics and the value, as they were before the step."""
    q, value = torch.stack([rows(inputs[name]) for name in ("q1", "q2")]).requires_grad_(), rows(inputs["v"]).requires_grad_()
    slow = torch.stack([rows(inputs[name]) for name in ("q1_target", "q2_target")])
    target = td_target(rows(inputs["rewards"]), rows(inputs["v_next"]), params["gamma"] * rows(inputs["not_done"]))
    q_loss, v_loss = critic_loss(q, target), expectile_loss(value, min_over_critics(slow), params["omega"])
    (grad_q,), (grad_value,) = gradients(q_loss, q), gradients(v_loss, value)
    return {"q_loss": q_loss, "v_loss": v_loss, "grad_q1": column(grad_q[0]), "grad_q2": column(grad_q[1]), "grad_v": column(grad_value)}


def deviations(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The log standard deviations of the same weights offline and online."""
    x = tensor(inputs["tanh_output"])
    low, high = params["low"], params["high"]
    return {"log_std_offline": soft_limits(x, low, high), "log_std_online": soft_limits(x, low, high, squash=True)}


def online_update(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One minibatch of the online phase, with advantages of the whole batch."""
    mean, log_std, action = leaf(inputs["mu_new"]), leaf(inputs["logstd_new"]), tensor(inputs["actions"])
    old, new = Gaussian(tensor(inputs["mu_old"]), tensor(inputs["logstd_old"])), Gaussian(mean, log_std)
    value, terminated = rows(inputs["values"]).requires_grad_(), boolean(inputs["terminal_dw"]).reshape(-1)
    raw, target = gae(
        rows(inputs["rewards"]),
        value,
        rows(inputs["next_values"]),
        terminated,
        boolean(inputs["done"]).reshape(-1) & ~terminated,
        gamma=params["gamma"],
        lam=params["gae_lambda"],
    )
    assert params["clip"] == params["value_clip"]
    surrogate, error = clipped_losses(
        Online(clip=params["clip"]).update(0.5).objective,
        new.log_prob(action),
        value,
        old_logp=old.log_prob(action),
        advantage=standardise(raw, eps=params["adv_eps"]),
        target=target,
        old_value=value.detach(),
    )
    actor_loss = surrogate.loss - params["entropy_coef"] * new.entropy().mean()
    grad_mean, grad_log_std = gradients(actor_loss, mean, log_std)
    return {
        "raw_advantages": raw,
        "actor_loss": actor_loss,
        "critic_loss": error,
        "grad_mu": grad_mean,
        "grad_logstd": grad_log_std,
        "grad_values": column(gradients(error, value)[0]),
    }


def am_q(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The score of imagined episodes of different lengths, and who may replace the old policy."""
    steps = [tensor(q) for q in inputs["q_per_rollout_step"]]
    q = torch.nn.utils.rnn.pad_sequence(steps, batch_first=True, padding_value=torch.nan)
    better = improved(tensor(inputs["current"]), tensor(inputs["best_so_far"]))
    return {"score": am_q_score(q, ~q.isnan()), "replace_index": better.nonzero().flatten()}


CASES: dict[str, Any] = {
    "bppo_loss": offline_surrogate,
    "equal_q_minus_v": equal_advantages,
    "diverse_bc_heuristic": diverse_cloning("heuristic"),
    "diverse_bc_distribution": diverse_cloning("distribution"),
    "iql_critic_step": iql_critics,
    "soft_clamp": deviations,
    "online_ppo_update": online_update,
    "am_q_score": am_q,
}
