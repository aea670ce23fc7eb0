"""Adapter for ``online-offline-gap.json``: IPO on a scaled margin, best-of-2, the preference model and what is measured."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.masking import masked_sum
from rheostat.objectives import preference_model
from rheostat.objectives.preference import preference_loss
from tests.vectors.tools import boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> Any:
    """The outputs of one case."""
    if name.startswith("ipo"):
        return plain(ipo(inputs, params["beta"]))
    cases = {"best_of_2": best_of_two, "preference_model_loss": judge, "kl_rao_blackwell": divergence, "win_rate": wins}
    return plain(cases[name](inputs))


def ipo(inputs: dict[str, Any], beta: float) -> dict[str, Any]:
    logp = {side: leaf(inputs[f"logp_{side}"]) for side in "wl"}
    sums = {side: masked_sum(logp[side] - tensor(inputs[f"ref_logp_{side}"]), boolean(inputs[f"mask_{side}"]), -1) for side in "wl"}
    loss = preference_loss(sums["w"], sums["l"], link="ipo-scaled", beta=beta).mean()
    gradient = gradients(loss, logp["w"], logp["l"])
    return {
        "loss": loss,
        "margin": sums["w"] - sums["l"],
        "policy_prefers_w": preference_model.prefers(sums["w"], sums["l"]),
        "grad_logp_w": gradient[0],
        "grad_logp_l": gradient[1],
    }


def best_of_two(inputs: dict[str, Any]) -> dict[str, Any]:
    logp = leaf(inputs["logp_w"])
    loss = preference_model.winner_likelihood_loss(masked_sum(logp, boolean(inputs["mask_w"]), -1))
    return {"loss": loss, "grad_logp_w": gradients(loss, logp)[0]}


def judge(inputs: dict[str, Any]) -> dict[str, Any]:
    first, other = leaf(inputs["logit_w_first"]), leaf(inputs["logit_l_first"])
    loss = preference_model.both_orders_loss(first, other)
    gradient = gradients(loss, first, other)
    return {
        "loss": loss,
        "grad_logit_w_first": gradient[0],
        "grad_logit_l_first": gradient[1],
        "prefers_w": preference_model.debiased_preference(first, other) > 0,
    }


def divergence(inputs: dict[str, Any]) -> dict[str, Any]:
    tokens, kl = preference_model.path_kl(tensor(inputs["policy_logits"]), tensor(inputs["ref_logits"]), boolean(inputs["mask"]))
    return {"per_token_kl": tokens, "kl": kl}


def wins(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"win_rate": preference_model.win_rate(torch.where(boolean(inputs["judge_prefers_policy"]), 1.0, -1.0))}
