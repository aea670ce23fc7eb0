"""Golden vectors of NFT: group statistics, the loss in all its forms, and its identity with GRPO on fresh data."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.credit.annotations import GroupAdvantage
from rheostat.credit.group_advantages import group_statistics
from rheostat.methods.language.grpo import GRPO
from rheostat.methods.language.nft import NFT
from rheostat.objectives.negative_aware import PromptWeight, negative_aware_terms
from tests.vectors.methods import advantage as method_advantage
from tests.vectors.methods import batch_of, minimised
from tests.vectors.tools import boolean, gradients, integer, leaf, plain, tensor

WEIGHTS: tuple[PromptWeight, ...] = ("uniform", "wrong-share", "odds")


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    mask = boolean(inputs["mask"])
    if name.startswith("group_statistics"):
        reward, group = tensor(inputs["token_level_rewards"]).sum(1), integer(inputs["group"])
        advantage = method_advantage(GRPO(advantage=GroupAdvantage("grpo", params["eps"])), reward, group, mask)
        return plain({"grpo_advantage": advantage, "correct_rate": (group_statistics(reward, group).mean + 1) / 2})
    logp = leaf(inputs["logp"])
    right, rate = tensor(inputs["correct"]), tensor(inputs["correct_rate"])
    options: dict[str, Any] = {
        "negative_weight": params["neg_weight"],
        "weight": WEIGHTS[params["normalize"]],
        "floor": params.get("clamp_negative", 1.0),
        "ratio": params["ratio_type"],
    }
    old = tensor(inputs["old_logp"])
    everywhere = mask if params["ratio_type"] == "sequence" else torch.ones_like(mask)  # the recorded terms are not masked
    method = NFT(
        prompt_weight=options["weight"],
        negative_weight=options["negative_weight"],
        floor=options["floor"],
        ratio=options["ratio"],
        divisor=params["token_divisor"] if params["ratio_type"] == "token" else 1.0,
    )
    loss, _ = minimised(method, logp, batch_of(mask, columns={"right": right, "rate": rate}, learner_logp=old))
    gradient = gradients(loss, logp)[0]
    found = {"loss": loss, "per_term_loss": negative_aware_terms(logp, old, right, rate, everywhere, **options), "grad_logp": gradient}
    if name.startswith("identity"):  # minus the advantage of GRPO with the population's deviation, or of Dr. GRPO
        advantage = (right - rate) / ((rate * (1 - rate)).sqrt() if "grpo_population" in name else 1.0)
        found |= {"advantage": advantage, "minus_adv_mask_over_1000": gradient}
    return plain(found)
