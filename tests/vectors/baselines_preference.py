"""Golden vectors of the preference baselines: the links of DPO's family on pairs. The other baselines wait for their methods."""

from __future__ import annotations

from typing import Any

from rheostat.masking import masked_sum
from rheostat.objectives.preference import Link, preference_loss
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor

LINKS: dict[str, Link] = {
    "sigmoid": "sigmoid", "ipo": "ipo-mean", "robust": "robust", "nca_pair": "nca", "hinge": "hinge", "bco_pair": "bco",
    "sppo_hard": "sppo", "apo_zero": "apo-zero", "sigmoid_norm": "sigmoid-mean",
}  # fmt: skip


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("dpo_"):
        return plain(pairs(inputs, params))
    if name.startswith("cdpo"):
        chosen, rejected = leaf(inputs["logratio_chosen"]), leaf(inputs["logratio_rejected"])
        losses = preference_loss(chosen, rejected, beta=params["beta"], smoothing=params["label_smoothing"])
        gradient = gradients(losses.mean(), chosen, rejected)
        found = {"loss": losses.mean(), "per_pair": losses}
        return plain(found | {"grad_logratio_chosen": gradient[0], "grad_logratio_rejected": gradient[1]})
    raise Unsupported(f"{name.partition('_')[0]} is no method of the library yet")


def pairs(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Loss and token gradients of a batch of pairs."""
    logp = {side: leaf(inputs[f"logp_{side}"]) for side in ("chosen", "rejected")}
    masks = {side: boolean(inputs[f"mask_{side}"]) for side in logp}
    ratio = {side: masked_sum(logp[side] - tensor(inputs[f"ref_logp_{side}"]), masks[side], -1) for side in logp}
    loss = preference_loss(
        ratio["chosen"],
        ratio["rejected"],
        link=LINKS[params["loss_type"]],
        beta=params["beta"],
        smoothing=params["label_smoothing"],
        chosen_length=masks["chosen"].sum(-1),
        rejected_length=masks["rejected"].sum(-1),
    ).mean()
    gradient = gradients(loss, logp["chosen"], logp["rejected"])
    return {"loss": loss, "grad_logp_chosen": gradient[0], "grad_logp_rejected": gradient[1]}
