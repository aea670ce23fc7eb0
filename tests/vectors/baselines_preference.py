"""Golden vectors of the preference baselines: DPO's family through the method, the others through their objectives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheostat.masking import masked_sum
from rheostat.methods.language.dpo import DPO
from rheostat.objectives import preference
from rheostat.objectives.preference import Link, preference_loss
from rheostat.objectives.supervised import weighted_likelihood
from tests.vectors.methods import batch_of, minimised
from tests.vectors.tools import boolean, gradients, leaf, plain, tensor

LINKS: dict[str, Link] = {
    "sigmoid": "sigmoid", "ipo": "ipo-mean", "robust": "robust", "nca_pair": "nca", "hinge": "hinge", "bco_pair": "bco",
    "sppo_hard": "sppo", "apo_zero": "apo-zero", "sigmoid_norm": "sigmoid-mean",
}  # fmt: skip


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    return plain(next(case for start, case in FAMILIES.items() if name.startswith(start))(inputs, params))


def smoothed(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Conservative DPO on given log-ratios."""
    chosen, rejected = leaf(inputs["logratio_chosen"]), leaf(inputs["logratio_rejected"])
    beta, smoothing = params["beta"], params["label_smoothing"]
    sides = {"chosen": chosen[:, None], "rejected": rejected[:, None]}
    ones = torch.ones(len(chosen), 1, dtype=torch.bool)
    loss = preferred(DPO(beta=beta, label_smoothing=smoothing), sides, dict.fromkeys(sides, ones), dict.fromkeys(sides, 0.0 * ones))
    gradient = gradients(loss, chosen, rejected)
    found = {"loss": loss, "per_pair": preference_loss(chosen, rejected, beta=beta, smoothing=smoothing)}
    return found | {"grad_logratio_chosen": gradient[0], "grad_logratio_rejected": gradient[1]}


def kto(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """KTO with its baseline from mismatched pairs."""
    logp, mask = leaf(inputs["logp"]), boolean(inputs["mask"])
    baseline = preference.kto_baseline(tensor(inputs["kl_logp_sum"]) - tensor(inputs["kl_ref_logp_sum"]))
    weights = {name: params[name] for name in ("desirable_weight", "undesirable_weight")}
    log_ratio = masked_sum(logp - tensor(inputs["ref_logp"]), mask, -1)
    loss = preference.kto_loss(log_ratio, boolean(inputs["desirable"]), baseline, beta=params["beta"], **weights).mean()
    return {"loss": loss, "kl_baseline": baseline, "grad_logp": gradients(loss, logp)[0]}


def orpo(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """ORPO on mean log-probabilities, in single precision as in the official function."""
    chosen, rejected = leaf(inputs["avg_logp_chosen"]), leaf(inputs["avg_logp_rejected"])
    single = chosen.float(), rejected.float()
    loss = inputs["nll_chosen"] + params["lambda"] * preference.odds_ratio_loss(*single).mean()
    gradient = gradients(loss, chosen, rejected)
    found = {"loss": loss, "mean_log_odds": preference.log_odds_ratio(*single).mean()}
    return found | {"grad_avg_logp_chosen": gradient[0], "grad_avg_logp_rejected": gradient[1]}


def without_reference(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """CPO and SimPO on reduced log-probabilities."""
    chosen, rejected = leaf(inputs["logp_chosen_reduced"]), leaf(inputs["logp_rejected_reduced"])
    beta, smoothing, link = params["beta"], params["label_smoothing"], params["loss_type"]
    if link == "simpo":
        per_pair = preference.simpo_loss(chosen, rejected, beta=beta, gamma=params["gamma"], smoothing=smoothing)
    else:
        per_pair = preference_loss(chosen, rejected, link=link, beta=beta, smoothing=smoothing)
    gradient = gradients(per_pair.mean(), chosen, rejected)
    return {"loss": per_pair.mean(), "per_pair": per_pair, "grad_chosen": gradient[0], "grad_rejected": gradient[1]}


def bradley_terry(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A reward model's loss on pairs."""
    chosen, rejected = leaf(inputs["reward_chosen"]), leaf(inputs["reward_rejected"])
    margin = None if inputs["margin"] is None else tensor(inputs["margin"])
    loss = preference.bradley_terry_loss(chosen, rejected, margin=margin, centring=params["center_rewards_coefficient"] or 0.0).mean()
    gradient = gradients(loss, chosen, rejected)
    return {"loss": loss, "grad_chosen": gradient[0], "grad_rejected": gradient[1]}


def online(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Two samples per prompt, rows i and i + B, of which the better one is chosen."""
    logp, mask, prompts = leaf(inputs["logp"]), boolean(inputs["mask"]), len(inputs["rewards"]) // 2
    reward = tensor(inputs["rewards"]) - (params["missing_eos_penalty"] or 0.0) * ~boolean(inputs["contains_eos"])
    rows = torch.arange(2 * prompts).view(2, prompts).T
    best = preference.best_of_n(reward[rows])[:, None]
    chosen, rejected = rows.gather(1, best)[:, 0], rows.gather(1, 1 - best)[:, 0]
    log_ratio = masked_sum(logp - tensor(inputs["ref_logp"]), mask, -1)
    loss = preference_loss(log_ratio[chosen], log_ratio[rejected], link=params["loss_type"], beta=params["beta"]).mean()
    return {"chosen_index": chosen, "rejected_index": rejected, "loss": loss, "grad_logp": gradients(loss, logp)[0]}


def reward_weighted(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Reward-weighted regression in both forms: clipped exponentials over all tokens, and a softmax over the answers of a prompt."""
    logp, mask, rewards = leaf(inputs["logp"]), boolean(inputs["mask"]), tensor(inputs["rewards"])
    if "weight_max" in params:
        weights = preference.exponential_weights(rewards, params["temperature"], params["weight_max"]).flatten()
        loss = weighted_likelihood(logp, mask=mask, weight=weights[:, None].expand_as(logp))
    else:
        weights = preference.softmax_weights(rewards, params["temperature"]).flatten()
        loss = -(weights * masked_sum(logp, mask, -1)).sum() / len(rewards)
    return {"loss": loss, "weights": weights, "grad_logp": gradients(loss, logp)[0]}


def best(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The best of N answers, its likelihood, and how far from the base it is."""
    if "n" in inputs:
        return {"kl_upper_bound": preference.best_of_n_kl_bound(tensor(inputs["n"]))}
    rewards = tensor(inputs["rewards"])
    index = preference.best_of_n(rewards)
    if "logp" not in inputs:
        return {"best_index": index}
    logp = leaf(inputs["logp"])
    rows = index + rewards.shape[1] * torch.arange(len(rewards))
    loss = -masked_sum(logp, boolean(inputs["mask"]), -1)[rows].mean()
    return {"best_index": index, "loss": loss, "grad_logp": gradients(loss, logp)[0]}


def pairs(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Loss and token gradients of a batch of pairs."""
    logp = {side: leaf(inputs[f"logp_{side}"]) for side in ("chosen", "rejected")}
    masks = {side: boolean(inputs[f"mask_{side}"]) for side in logp}
    references = {side: tensor(inputs[f"ref_logp_{side}"]) for side in logp}
    method = DPO(link=LINKS[params["loss_type"]], beta=params["beta"], label_smoothing=params["label_smoothing"])
    loss = preferred(method, logp, masks, references)
    gradient = gradients(loss, logp["chosen"], logp["rejected"])
    return {"loss": loss, "grad_logp_chosen": gradient[0], "grad_logp_rejected": gradient[1]}


def preferred(method: DPO, logp: dict[str, Tensor], masks: dict[str, Tensor], references: dict[str, Tensor]) -> Tensor:
    """What DPO minimises on pairs, of which each side is ``[P, T]`` of its own width."""
    width, pairs = max(side.shape[1] for side in logp.values()), len(logp["chosen"])

    def stacked(sides: dict[str, Tensor]) -> Tensor:
        return torch.cat([pad(sides[name], (0, width - sides[name].shape[1])) for name in ("chosen", "rejected")])

    batch = batch_of(
        stacked(masks),
        columns={"chosen": torch.arange(2 * pairs) < pairs},
        units=torch.arange(pairs).repeat(2),
        reference_logp=stacked(references).double(),
    )
    return minimised(method, stacked(logp), batch)[0]


FAMILIES = {
    "dpo_": pairs, "cdpo_": smoothed, "kto_": kto, "orpo_": orpo, "cpo_": without_reference, "bt_rm_": bradley_terry,
    "online_dpo_": online, "rwr_": reward_weighted, "best_of_n_": best,
}  # fmt: skip
