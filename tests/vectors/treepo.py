"""Golden vectors of TreePO: advantages from paths, how many branches a tree grows, and the loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.collect.language.tree_growth import branch_budget, even_copies, weighted_copies
from rheostat.credit.group_advantages import to_tokens
from rheostat.credit.tree_advantages import progress_advantage, segments_to_tokens, sibling_advantage, subgroup_advantage, whitened
from rheostat.masking import masked_mean
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl import kl_estimate
from rheostat.objectives.policy_gradient import policy_gradient
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
    if params["estimator"] == "subtree":
        found = subgroup_advantage(reward, group, path, weights=WEIGHTS[params["weights"]], skip_equal=params["drop_zero_std"])
        return whitened(to_tokens(found, mask), mask)
    if params["estimator"] == "segment":
        found = progress_advantage(reward, group, path, decay=params["eta"] if params["eta"] > 0 else None)
        return whitened(segments_to_tokens(found, mask, params["segment_len"]), mask)
    return segments_to_tokens(sibling_advantage(reward, group, path), mask, params["segment_len"])


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
    adv = tensor(inputs["advantages"])
    shared: dict[str, Any] = {"denominator_logp": old, "mask": mask, "aggregate": params["loss_agg"]}
    found = policy_gradient(logp, adv, clip=Clip(params["clip_low"], params["clip_high"], dual=params["clip_c"]), **shared)
    single = policy_gradient(logp, adv, clip=Clip(params["clip_low"], params["clip_high"]), **shared)
    return {
        "loss": found.loss,
        "grad_logp": gradients(found.loss, logp)[0],
        "clipfrac": single.clip_fraction,
        "clipfrac_lower": found.clip_fraction - single.clip_fraction,
        "ppo_kl": masked_mean(kl_estimate(old, logp, "k1", mask=mask), mask),
    }
