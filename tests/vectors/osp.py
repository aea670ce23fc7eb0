"""Golden vectors of OSP: strengths from both orders, rankings against a baseline, and the cross-entropy that the method minimises."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.credit.preference_measures import both_orders
from rheostat.credit.preference_strength import ranking, strengths
from rheostat.learner.judging import strength_of
from rheostat.methods.language.osp import OSP
from tests.vectors.methods import batch_of, minimised
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("spce"):
        return plain(cross_entropy(inputs, params))
    if name == "judge_debias":
        said = iter((tensor(inputs["logit_first_order"]).sigmoid(), tensor(inputs["logit_swapped_order"]).sigmoid()))
        return plain({"p_first_beats_second": strength_of(*both_orders(lambda *_: next(said), [], [], []))})
    if name in ("ranked_pairing_via_baseline", "ties"):
        return plain(ranked(inputs))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def ranked(inputs: dict[str, Any]) -> dict[str, Any]:
    """All pairs of a ranking, the better answer first."""
    q, part = tensor([inputs["p_vs_baseline"]]), OSP().strength
    order = ranking(q)[0].tolist()
    pairs = [[better, worse] for place, better in enumerate(order) for worse in order[place + 1 :]]
    found = {form: strengths(q, form, part.clip)[0] for form in ("composed", "difference")}  # type: ignore[arg-type]
    of = {form: [each[i, j] for i, j in pairs] for form, each in found.items()}
    return {
        "rank_order": order,
        "pairs": pairs,
        "pair_strength_bt": torch.stack(of["composed"]),
        "pair_strength_ipo_difference": torch.stack(of["difference"]),
    }


def cross_entropy(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One gradient step of the method; pairs are units of two rows, of which the first is ranked first."""
    first, second = leaf(inputs["logp_1"]), leaf(inputs["logp_2"])
    strength = tensor(inputs["preference_strength"])
    count = len(strength)
    unknown = torch.full_like(strength, float("nan"))
    batch = batch_of(
        torch.cat([boolean(inputs["mask_1"]), boolean(inputs["mask_2"])]),
        reference_logp=torch.cat([tensor(inputs["ref_logp_1"]), tensor(inputs["ref_logp_2"])]),
        units=torch.arange(count).repeat(2),
        columns={
            "rank": torch.arange(2).repeat_interleave(count),
            "strength": torch.stack([torch.cat([unknown, unknown]), torch.cat([strength, unknown])], 1),
        },
    )
    loss, _ = minimised(OSP(beta=params["beta"]), torch.cat([first, second]), batch)
    one, other = gradients(loss, first, second)
    return {"loss": loss, "grad_logp_1": one, "grad_logp_2": other}
