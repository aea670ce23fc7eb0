"""Golden vectors of the preference baselines, through the methods' own parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheostat.collect.language.sampled_pairs import SampledPairs
from rheostat.credit.annotations import RewardWeights
from rheostat.methods.language.best_of_n import BestOfN
from rheostat.methods.language.cdpo import CDPO
from rheostat.methods.language.dpo import DPO
from rheostat.methods.language.ipo import IPO
from rheostat.methods.language.kto import KTO
from rheostat.methods.language.online_dpo import OnlineDPO
from rheostat.methods.language.orpo import ORPO
from rheostat.methods.language.reward_model import RewardModel
from rheostat.methods.language.robust_dpo import RobustDPO
from rheostat.methods.language.rwr import RWR
from rheostat.methods.language.simpo import SimPO
from rheostat.objectives import preference
from rheostat.objectives.preference import Link, preference_loss
from rheostat.objectives.unpaired_terms import BASELINE
from rheostat.parts import BEGUN, Batch
from rheostat.policies.language.model import TokenScores
from tests.vectors.methods import around, batch_of, minimised, scores_of
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
    loss = preferred(CDPO(beta=beta, label_smoothing=smoothing), sides, dict.fromkeys(sides, ones), dict.fromkeys(sides, 0.0 * ones))
    gradient = gradients(loss, chosen, rejected)
    found = {"loss": loss, "per_pair": preference_loss(chosen, rejected, beta=beta, smoothing=smoothing)}
    return found | {"grad_logratio_chosen": gradient[0], "grad_logratio_rejected": gradient[1]}


def kto(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """KTO with its baseline from given log-ratios of mismatched pairs."""
    logp, mask, label = leaf(inputs["logp"]), boolean(inputs["mask"]), boolean(inputs["desirable"])
    baseline = preference.kto_baseline(tensor(inputs["kl_logp_sum"]) - tensor(inputs["kl_ref_logp_sum"]))
    method = KTO(beta=params["beta"], **{name: params[name] for name in ("desirable_weight", "undesirable_weight")})
    batch = batch_of(mask, columns={"desirable": label}, reference_logp=tensor(inputs["ref_logp"]))
    batch.facts |= {BEGUN: True, BASELINE: baseline}
    loss, _ = minimised(method, logp, batch)
    return {"loss": loss, "kl_baseline": baseline, "grad_logp": gradients(loss, logp)[0]}


def orpo(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """ORPO on mean log-probabilities, in single precision as in the official function; the likelihood is given."""
    chosen, rejected = leaf(inputs["avg_logp_chosen"]), leaf(inputs["avg_logp_rejected"])
    odds, likelihood = ORPO(odds_coefficient=params["lambda"]).compose().update_of().terms
    batch, logp = answers(chosen.float(), rejected.float())
    found, _ = odds.term(scores_of(logp), batch, odds.term.denominator(batch, around()), around())
    loss = odds.at(0) * found + likelihood.at(0) * inputs["nll_chosen"]
    gradient = gradients(loss, chosen, rejected)
    told = {"loss": loss, "mean_log_odds": preference.log_odds_ratio(chosen.float(), rejected.float()).mean()}
    return told | {"grad_avg_logp_chosen": gradient[0], "grad_avg_logp_rejected": gradient[1]}


def answers(chosen: Tensor, rejected: Tensor) -> tuple[Batch, Tensor]:
    """Pairs of answers of one token each, and the log-probabilities ``[2 P, 1]`` of their tokens."""
    pairs = len(chosen)
    columns = {"chosen": torch.arange(2 * pairs) < pairs, "margin": torch.zeros(2 * pairs, dtype=torch.float64)}
    batch = batch_of(torch.ones(2 * pairs, 1, dtype=torch.bool), columns=columns, units=torch.arange(pairs).repeat(2))
    return batch, torch.cat([chosen, rejected])[:, None]


def without_reference(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """CPO and SimPO on reduced log-probabilities, that is on answers of one token; SimPO's link is the sigmoid with a margin."""
    chosen, rejected = leaf(inputs["logp_chosen_reduced"]), leaf(inputs["logp_rejected_reduced"])
    link: Any = "sigmoid" if params["loss_type"] == "simpo" else params["loss_type"]
    method = SimPO(link=link, beta=params["beta"], gamma=params["gamma"], label_smoothing=params["label_smoothing"])
    batch, logp = answers(chosen, rejected)
    loss, _ = minimised(method, logp, batch)
    single = [minimised(method, logp[rows], batch[rows])[0] for rows in torch.arange(len(logp)).view(2, -1).T]
    gradient = gradients(loss, chosen, rejected)
    return {"loss": loss, "per_pair": torch.stack(single), "grad_chosen": gradient[0], "grad_rejected": gradient[1]}


def bradley_terry(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A reward model's loss on pairs of answers of one token, after which its head says the reward."""
    chosen, rejected = leaf(inputs["reward_chosen"]), leaf(inputs["reward_rejected"])
    method = RewardModel(centring=params["center_rewards_coefficient"] or 0.0, margins=inputs["margin"] is not None)
    (each,) = method.compose().update_of().terms
    batch, reward = answers(chosen, rejected)
    if inputs["margin"] is not None:
        batch.columns["margin"] = tensor(inputs["margin"]).repeat(2)
    scores = TokenScores(torch.zeros_like(reward), next_value=reward)
    loss, _ = each.term(scores, batch, each.term.denominator(batch, around()), around())
    gradient = gradients(loss, chosen, rejected)
    return {"loss": loss, "grad_chosen": gradient[0], "grad_rejected": gradient[1]}


def online(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Two samples per prompt, rows i and i + B, of which the collector takes the better one as chosen."""
    logp, mask, prompts = leaf(inputs["logp"]), boolean(inputs["mask"]), len(inputs["rewards"]) // 2
    data = SampledPairs(prompts, 2, "first", params["missing_eos_penalty"] or 0.0)
    place = torch.arange(2 * prompts).view(2, prompts).T.flatten()  # ours are next to each other
    cut = ~boolean(inputs["contains_eos"])[place]
    chosen, rejected = data.compared(tensor(inputs["rewards"])[place], cut)
    pairs, method = place[torch.cat([chosen, rejected])], OnlineDPO(data=data, link=params["loss_type"], beta=params["beta"])
    columns = {"chosen": torch.arange(2 * prompts) < prompts}
    units = torch.arange(prompts).repeat(2)
    batch = batch_of(mask[pairs], columns=columns, units=units, reference_logp=tensor(inputs["ref_logp"])[pairs])
    loss, _ = minimised(method, logp[pairs], batch)
    return {
        "chosen_index": place[chosen],
        "rejected_index": place[rejected],
        "loss": loss,
        "grad_logp": gradients(loss, logp)[0],
    }


def reward_weighted(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Reward-weighted regression in both forms: clipped exponentials over all tokens, and a softmax over the answers of a prompt."""
    logp, batch = leaf(inputs["logp"]), grouped(inputs)
    capped = {"largest": params["weight_max"]} if "weight_max" in params else {"form": "softmax"}
    method = RWR(weights=RewardWeights(temperature=params["temperature"], **capped))
    batch = method.compose().credit[0](around(), batch)
    loss, _ = minimised(method, logp, batch)
    return {"loss": loss, "weights": batch.columns["weight"], "grad_logp": gradients(loss, logp)[0]}


def grouped(inputs: dict[str, Any]) -> Batch:
    """Answers ``[X N, T]`` of prompts, with their rewards."""
    rewards = tensor(inputs["rewards"])
    mask = boolean(inputs["mask"]) if "mask" in inputs else torch.ones(rewards.numel(), 1, dtype=torch.bool)
    group = torch.arange(len(rewards)).repeat_interleave(rewards.shape[1])[:, None].expand(mask.shape)
    return batch_of(mask, group=group, reward=torch.where(torch.arange(mask.shape[1]) == 0, rewards.flatten()[:, None], 0.0))


def best(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The best of N answers, its likelihood, and how far from the base it is."""
    if "n" in inputs:
        return {"kl_upper_bound": preference.best_of_n_kl_bound(tensor(inputs["n"]))}
    method, batch = BestOfN(), grouped(inputs)
    for part in method.compose().retain:
        batch = part.retain(around(), batch)
    found = {"best_index": batch.rows.mask.any(1).view(len(inputs["rewards"]), -1).int().argmax(1)}
    if "logp" not in inputs:
        return found
    logp = leaf(inputs["logp"])
    loss, _ = minimised(method, logp, batch)
    return found | {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def pairs(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Loss and token gradients of a batch of pairs."""
    logp = {side: leaf(inputs[f"logp_{side}"]) for side in ("chosen", "rejected")}
    masks = {side: boolean(inputs[f"mask_{side}"]) for side in logp}
    references = {side: tensor(inputs[f"ref_logp_{side}"]) for side in logp}
    link, beta, smoothing = LINKS[params["loss_type"]], params["beta"], params["label_smoothing"]
    method: Any = DPO(link=link, beta=beta, label_smoothing=smoothing)
    if link == "ipo-mean":
        method = IPO(scale="mean", beta=beta)
    elif link == "robust":
        method = RobustDPO(beta=beta, label_smoothing=smoothing)
    loss = preferred(method, logp, masks, references)
    gradient = gradients(loss, logp["chosen"], logp["rejected"])
    return {"loss": loss, "grad_logp_chosen": gradient[0], "grad_logp_rejected": gradient[1]}


def preferred(method: Any, logp: dict[str, Tensor], masks: dict[str, Tensor], references: dict[str, Tensor]) -> Tensor:
    """What a method of pairs minimises on pairs, of which each side is ``[P, T]`` of its own width."""
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
