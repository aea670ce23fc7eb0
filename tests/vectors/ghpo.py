"""Golden vectors of GHPO: how hints are cut, which groups get them, advantages, and the loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.collect.language.hints import prefix, resample_with_hints
from rheostat.credit.annotations import GroupAdvantage
from rheostat.learner.language import LossKL
from rheostat.masking import Aggregation
from rheostat.methods.language.ghpo import GHPO
from rheostat.objectives.clipping import Clip
from rheostat.parts import Aggregate
from tests.vectors.methods import advantage as method_advantage
from tests.vectors.methods import batch_of, minimised
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
    hints = [[prefix(text, ratio) for ratio in params["ratios"]] for text in inputs["solutions"]]
    return {"hints": hints, "lengths": [[len(text) for text in row] for row in hints]}


def staged(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Which groups are sampled again, and what they are worth."""
    recorded = tensor(inputs["accuracy_by_stage"])
    found = resample_with_hints(recorded[0], lambda stage, failing: (failing, recorded[stage, failing]), len(params["ratios"]))
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
    return {"adv_scaled": advantages(reward, params["adv_eps"]), "adv_unscaled": advantages(reward)}


def advantages(reward: Tensor, eps: float | None = None) -> Tensor:
    """``[P, G]`` of ``[P, G]``; without an eps nothing is divided by the deviation."""
    group = integer([[index] * reward.shape[1] for index in range(len(reward))]).flatten()
    part = GroupAdvantage("mean-baseline") if eps is None else GroupAdvantage("grpo", eps)
    return method_advantage(GHPO(advantage=part), reward.flatten(), group).view_as(reward)


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The released loss, which counts an empty row too; in a single iteration the learner is compared with itself."""
    logp = leaf(inputs["logp"])
    modes: dict[str, Aggregation] = {"bnpo": "token-mean", "grpo": "sequence-mean", "dr_grpo": "constant"}
    mode = modes[params["loss_type"]]
    method = GHPO(clip=Clip(params["eps_low"], params["eps_high"]), aggregate=Aggregate(mode), kl=LossKL(params["beta"]))
    batch = batch_of(
        boolean(inputs["mask"]),
        learner_logp=None if inputs["old_logp"] is None else tensor(inputs["old_logp"]),
        reference_logp=tensor(inputs["ref_logp"]),
        advantage=tensor(inputs["adv_per_seq"]).unsqueeze(-1).expand_as(logp),
    )
    count = float(len(logp)) if mode == "sequence-mean" else None
    total, _ = minimised(method, logp, batch, longest=params["max_completion_length"], denominators=count)
    return {"loss": total, "grad_logp": gradients(total, logp)[0]}
