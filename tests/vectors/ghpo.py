"""Golden vectors of GHPO: how hints are cut, which groups get them, advantages, and the loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.collect.language.hints import beginning, refine
from rheostat.credit.group_advantages import grpo_advantage
from rheostat.masking import Aggregation, aggregate
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl import kl_estimate
from rheostat.objectives.policy_gradient import policy_gradient
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    kinds = {"hint": hint, "refine": staged, "loss": loss, "advantage": groups}
    kind = name.partition("/")[0]
    if kind not in kinds:
        raise Unsupported(f"the adapter does not know a case {name!r}")
    return plain(kinds[kind](inputs, params))


def hint(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The first characters of solutions."""
    hints = [[beginning(text, ratio) for ratio in params["ratios"]] for text in inputs["solutions"]]
    return {"hints": hints, "lengths": [[len(text) for text in row] for row in hints]}


def staged(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Which groups are sampled again, and what they are worth."""
    recorded = tensor(inputs["accuracy_by_stage"])
    found = refine(recorded[0], lambda stage, failing: (failing, recorded[stage, failing]), len(params["ratios"]))
    accuracy, form = params["reward_weights"]
    reward = accuracy * found.accuracy + form * tensor(inputs["format_final"])
    return {
        "stage": found.stage,
        "final_accuracy": found.accuracy,
        "group_generations": found.generations,
        "advantages": advantages(reward, params["adv_eps"]),
    }


def groups(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Advantages with and without the deviation."""
    reward = tensor(inputs["rewards"])
    return {"adv_scaled": advantages(reward, params["adv_eps"]), "adv_unscaled": advantages(reward, params["adv_eps"], "none")}


def advantages(reward: Tensor, eps: float, scale: Any = "group") -> Tensor:
    """``[P, G]`` of ``[P, G]``."""
    group = integer([[index] * reward.shape[1] for index in range(len(reward))]).flatten()
    return grpo_advantage(reward.flatten(), group, scale=scale, eps=eps).view_as(reward)


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The released loss; in a single iteration the learner is compared with itself."""
    logp, mask = leaf(inputs["logp"]), boolean(inputs["mask"])
    old = None if inputs["old_logp"] is None else tensor(inputs["old_logp"])
    adv = tensor(inputs["adv_per_seq"]).unsqueeze(-1).expand_as(logp)
    rows = len(logp)
    modes: dict[str, tuple[Aggregation, int | None]] = {
        "bnpo": ("token-mean", None),
        "grpo": ("sequence-mean", rows),
        "dr_grpo": ("constant", rows * params["max_completion_length"]),
    }
    mode, count = modes[params["loss_type"]]
    clip = Clip(params["eps_low"], params["eps_high"])
    total = policy_gradient(logp, adv, denominator_logp=old, mask=mask, clip=clip, aggregate=mode, denominator=count).loss
    if params["beta"]:
        divergence = kl_estimate(logp, tensor(inputs["ref_logp"]), "k3", mask=mask)
        total = total + params["beta"] * aggregate(divergence, mask, mode, denominator=count)
    return {"loss": total, "grad_logp": gradients(total, logp)[0]}
