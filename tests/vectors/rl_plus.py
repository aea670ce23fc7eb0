"""Golden vectors of RL-PLUS: the loss of mixed batches, its parts, and both group advantages."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.credit.group_advantages import grpo_advantage, split_advantage
from rheostat.masking import aggregate, masked_mean, select
from rheostat.objectives.clipping import Clip, ClipRule, NoClip
from rheostat.objectives.foreign_terms import External, external_clip, external_denominator
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.weights import expert_weight
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    kind = name.partition("/")[0]
    if kind == "advantage":
        return plain(advantage(inputs, params))
    if kind == "loss":
        return plain(loss(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def advantage(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Over the whole group, or over its own rows (``grpo_split``)."""
    rewards, group = tensor(inputs["rewards"]), integer(inputs["group"])
    if "on_policy" in inputs:
        scale = "group" if params["use_std"] else "none"
        return {"adv_per_seq": split_advantage(rewards, group, boolean(inputs["on_policy"]), scale=scale, eps=params["eps"])}
    return {"adv_per_seq": grpo_advantage(rewards, group, scale="group" if params["use_std"] else "none", eps=params["eps"])}


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The released loss and its parts."""
    logp, old, adv = leaf(inputs["logp"]), tensor(inputs["old_logp"]), tensor(inputs["adv"])
    mask, external = boolean(inputs["mask"]), boolean(inputs["prefix_mask"])
    plus = params["strategy"] == "RL-PLUS"
    kind: External = "mixed" if plus else "certain"
    denominator = external_denominator(old, kind)
    weight = expert_weight(logp, "exploration", gamma=params["gamma"]) if plus else None
    clip = params["on_policy_clip"]
    clip: ClipRule = NoClip() if clip is None else Clip(clip, clip)
    parts = {
        "on": policy_gradient(logp, adv, denominator_logp=old, mask=mask & ~external, clip=clip),
        "off": policy_gradient(
            logp,
            adv,
            denominator_logp=denominator,
            mask=mask & external,
            clip=external_clip(params.get("off_max_clip")),
            weight=weight,
        ),
    }
    tokens: Tensor = parts["on"].terms.loss + parts["off"].terms.loss
    by_tokens = params["norm"] == "token-mean"
    total = aggregate(tokens, mask, "token-mean" if by_tokens else "constant", denominator=None if by_tokens else logp.shape[-1])
    everything = policy_gradient(logp, adv, denominator_logp=denominator, clip=NoClip()).ratio
    found = {
        "loss": total,
        "grad_logp": gradients(total, logp)[0],
        "off_pg_loss": parts["off"].loss,
        "on_pg_loss": parts["on"].loss,
        "off_ratio_mean": masked_mean(select(everything, external), mask & external),
    }
    return found | ({"mis_ratio": everything, "focal_weight": weight} if plus else {})
