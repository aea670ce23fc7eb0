"""Golden vectors of TreePO: advantages from paths, how many branches a tree grows, and the loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.collect.language.tree_growth import branch_budget, even_copies, weighted_copies
from rheostat.credit.tree_advantages import AnyTreeAdvantage, ProgressAdvantage, SiblingAdvantage, SubgroupAdvantage
from rheostat.masking import masked_mean
from rheostat.methods.language.treepo import TreePO
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl import kl_estimate
from rheostat.parts import Aggregate
from tests.vectors.methods import batch_of, minimised
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor

WEIGHTS: dict[str, Any] = {"average": "average", "group_size": "group-size"}


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if "estimator" in params:
        return plain({"advantages": advantages(inputs, params)})
    if name.startswith("budget_allocation"):
        return {"alloc": weighted_copies(inputs["weights"], params["total"])}
    if name.startswith("branching_budget"):
        names = ("max_width", "finished_total", "finished_this_step", "active", "fixed_div")
        total = branch_budget(*(params[name] for name in names))
        return {"total": total, "alloc": even_copies(total, params["active"])}
    if name.startswith("policy_loss"):
        return plain(loss(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def advantages(inputs: dict[str, Any], params: dict[str, Any]) -> Tensor:
    """Of tokens, whitened but for SPO's."""
    group, path = paths(inputs["paths"])
    reward, mask = tensor(inputs["token_level_rewards"]).sum(1), boolean(inputs["mask"])
    part: AnyTreeAdvantage = SiblingAdvantage()
    if params["estimator"] == "subtree":
        part = SubgroupAdvantage(weights=WEIGHTS[params["weights"]], skip_equal=params["drop_zero_std"])
    if params["estimator"] == "segment":
        part = ProgressAdvantage(decay=params["eta"] if params["eta"] > 0 else None)
    batch = batch_of(mask, columns={"path": path}, group=group[:, None].expand(mask.shape))
    found: Any = TreePO(advantage=part).advantage.with_segment(params.get("segment_len", 0))
    return found.of(batch, reward)


def paths(names: list[str]) -> tuple[Tensor, Tensor]:
    """``u0#1-0#2-1`` as the number of its tree and the numbers of its nodes."""
    known: dict[str, int] = {}
    parts = [name.split("#") for name in names]
    rows = [[known.setdefault(part if part == root else f"{root}#{part}", len(known)) for part in (root, *rest)] for root, *rest in parts]
    width = max(map(len, rows))
    filled = integer([row + [-1] * (width - len(row)) for row in rows])
    return filled[:, 0], filled[:, 1:]


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """PPO's clip with a dual clip, by its gradient too, and the diagnostics of the code."""
    logp, old, mask = leaf(inputs["logp"]), tensor(inputs["old_logp"]), boolean(inputs["mask"])
    batch = batch_of(mask, learner_logp=old, advantage=tensor(inputs["advantages"]))
    low, high, mode = params["clip_low"], params["clip_high"], Aggregate(params["loss_agg"])
    found, told = minimised(TreePO(clip=Clip(low, high, dual=params["clip_c"]), aggregate=mode), logp, batch)
    _, single = minimised(TreePO(clip=Clip(low, high), aggregate=mode), logp, batch)
    return {
        "loss": found,
        "grad_logp": gradients(found, logp)[0],
        "clipfrac": single["meter/clip_fraction"],
        "clipfrac_lower": told["meter/clip_fraction"] - single["meter/clip_fraction"],
        "ppo_kl": masked_mean(kl_estimate(old, logp, "k1", mask=mask), mask),
    }
