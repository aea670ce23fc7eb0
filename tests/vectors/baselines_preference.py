"""Golden vectors of the preference baselines: the links of DPO's family on pairs. The other baselines wait for their methods."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheostat.methods.language.dpo import DPO
from rheostat.objectives.preference import Link, preference_loss
from tests.vectors.methods import batch_of, minimised
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
        beta, smoothing = params["beta"], params["label_smoothing"]
        sides = {"chosen": chosen[:, None], "rejected": rejected[:, None]}
        ones = torch.ones(len(chosen), 1, dtype=torch.bool)
        loss = preferred(DPO(beta=beta, label_smoothing=smoothing), sides, dict.fromkeys(sides, ones), dict.fromkeys(sides, 0.0 * ones))
        gradient = gradients(loss, chosen, rejected)
        found = {"loss": loss, "per_pair": preference_loss(chosen, rejected, beta=beta, smoothing=smoothing)}
        return plain(found | {"grad_logratio_chosen": gradient[0], "grad_logratio_rejected": gradient[1]})
    raise Unsupported(f"{name.partition('_')[0]} is no method of the library yet")


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
