"""Golden vectors of RLFR: the deviation of a given field, what the method's penalties make of scores, and its policy loss.

The recorded numbers are those of the released code, so penalties are normalised as released.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.credit.flow_rewards import FlowRewards, keep_largest, normalise
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.methods.language.rlfr import RLFR
from rheostat.objectives.flow_matching import debiased, deviation
from tests.vectors.methods import advantage, batch_of, minimised
from tests.vectors.tools import boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("velocity_deviation"):
        return plain(field(inputs, params))
    return plain(loss(inputs, params) if name.startswith("policy_loss") else shaping(inputs, params))


def field(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Deviations of the linear field that is written down beside them."""
    target, condition, noise = tensor(inputs["target"]), tensor(inputs["cond"]), tensor(inputs["noise"])

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return x @ tensor(inputs["stub_W"]) + condition @ tensor(inputs["stub_U"]) + t[:, None] - params["layer_id"]

    times = params["timesteps"]
    found = torch.stack([deviation(velocity, target, noise, torch.full((len(target),), t).double()) for t in times], -1)
    return {"loss": found.mean(-1), "score": debiased(found, times, released=True)}


def shaping(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """From scores to advantages, by the method's own advantage and penalty."""
    score, mask = tensor(inputs["deviation"]), boolean(inputs["mask"])
    method = RLFR(
        penalty=FlowRewards(
            coefficient=params["flow_coef"],
            threshold=None if params["threshold"] < 0 else params["threshold"],
            top_k=None if params["topk"] < 0 else params["topk"],
            released=True,
        )
    )
    penalty = next(part for part in method.compose().credit if isinstance(part, FlowRewards))
    outcome, group = tensor(inputs["terminal_reward"]), torch.zeros(len(mask), dtype=torch.int64)
    worth = advantage(method, outcome, group, mask)
    reward = penalty.rewards(score, mask)
    batch = penalty.add(batch_of(mask, advantage=worth), reward)
    at_last = tensor(inputs["group_norm_reward"])
    normalised = normalise(score, mask, form=penalty.form, released=penalty.released)
    return {
        "normalized": normalised,
        "filtered": keep_largest(normalised, threshold=penalty.threshold, top_k=penalty.top_k),
        "token_reward": reward + reward_at_last_token(at_last, mask),
        "advantages": batch.rows.advantage,
    }


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The surrogate of rows that are a whole gradient step, with the method's default clip and aggregation."""
    clip = RLFR().clip
    assert (clip.low, clip.high, clip.dual) == (params["clip_eps"], params["clip_eps"], params["ratio_cap"])
    logp, mask = leaf(inputs["logp"]), boolean(inputs["mask"])
    rows = batch_of(mask, learner_logp=tensor(inputs["old_logp"]), advantage=tensor(inputs["advantages"]))
    value, _ = minimised(RLFR(), logp, rows)
    return {"loss": value, "grad_logp": gradients(value, logp)[0]}
