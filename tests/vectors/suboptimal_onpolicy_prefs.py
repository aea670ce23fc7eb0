"""Adapter for ``suboptimal-onpolicy-prefs.json``: losses on graded samples, and both directions of KL on one softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rheostat.credit.score_baselines import RunningRewards
from rheostat.objectives import graded_samples
from rheostat.objectives.kl import categorical_kl
from rheostat.policies.control.distributions import Categorical
from tests.vectors.tools import boolean, gradients, integer, leaf, plain, tensor

NEGATIVE: dict[str, graded_samples.Negative] = {
    "no_negative_gradient": "none", "worst_action": "worst",
    "average_over_worse_actions": "mean-of-worse", "sum_over_worse_actions": "sum-of-worse",
}  # fmt: skip


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> Any:
    """The outputs of one case."""
    if name.startswith("llm_tokenwise"):
        return plain(tokenwise(inputs, params, name))
    families: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
        "bandit_dpo": pairs, "bandit_ipo": pairs, "bandit_best": best_of_n, "bandit_awr": regression, "bandit_reinforce": reinforce,
        "seq_ppo": clipped, "llm_": tokens, "forward_reverse": divergences,
    }  # fmt: skip
    return plain(next(family for start, family in families.items() if name.startswith(start))(inputs, params))


def bandit(inputs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, and the log-probabilities and rewards ``[S, N]`` of the samples."""
    logits = leaf(inputs["policy_logits"])
    return logits, logits.log_softmax(-1).gather(-1, integer(inputs["actions"])), tensor(inputs["rewards"])


def ended(loss: Tensor, logits: Tensor) -> dict[str, Any]:
    return {"loss": loss, "grad_policy_logits": gradients(loss, logits)[0]}


def pairs(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    logits, logp, reward = bandit(inputs)
    reference = tensor(inputs["ref_logits"]).log_softmax(-1)[integer(inputs["actions"])]
    link: Any = ("sigmoid", params["beta"]) if params["loss_type"] == "dpo" else ("ipo", 1 / (2 * params["beta"]))
    loss, margins = graded_samples.all_pairs_loss(logp, reference, reward, link=link[0], beta=link[1], threshold=params["threshold"])
    return ended(loss, logits) | {"num_pairs": len(margins)}


def best_of_n(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    logits, logp, reward = bandit(inputs)
    negative = NEGATIVE[params["negative_gradient_type"]]
    weight = 0.0 if negative == "none" else params["beta"]
    return ended(graded_samples.best_of_n_loss(logp, reward, negative=negative, weight=weight), logits)


def regression(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    logits, logp, reward = bandit(inputs)
    return ended(graded_samples.exponential_loss(logp, reward, temperature=params["beta"]), logits)


def reinforce(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    logits, logp, reward = bandit(inputs)
    weight = RunningRewards().normalise(reward)
    loss = graded_samples.reinforce_loss(logp, weight, entropy=params["entropy_beta"])
    return ended(loss, logits) | {"normalised_rewards": weight.flatten()}


def clipped(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    logp = leaf(inputs["logp"])
    loss = graded_samples.clipped_sequence_loss(
        logp,
        tensor(inputs["old_logp"]),
        tensor(inputs["ref_logp"]),
        tensor(params["reward"]),
        clip=params["cliprange"],
        kl_coefficient=params["beta"],
    )
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def token_rows(queries: Any, responses: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Shifted log-probabilities and the authors' mask, which leaves out the first token of every response."""
    tokens = torch.cat([integer(queries), integer(responses)], 1)
    logp = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    mask = (torch.arange(tokens.shape[1] - 1) >= len(queries[0])).expand_as(logp)
    return logp, mask


def tokens(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    logits, score = leaf(inputs["logits"]), tensor(inputs["scores"])
    logp, mask = token_rows(inputs["query_ids"], inputs["response_ids"], logits)
    bounds = {"low": float("-inf"), "high": float("inf")}
    if params["clip_weighting"]:
        bounds = {"low": params["clip_weighting_value_min"], "high": params["clip_weighting_value_max"]}
    options: dict[str, Any] = {}
    if params.get("filter_or_reweight") == "filter":
        weight, options = graded_samples.top_k_weights(score, params["filter_topk"]), {"divide_by": "kept"}
    else:
        form = params.get("weighting_type", "linear")
        weight = graded_samples.bounded_weights(score, temperature=params["temperature"], form=form, **bounds)
    if "ref_logits" in inputs:
        reference, _ = token_rows(inputs["query_ids"], inputs["response_ids"], tensor(inputs["ref_logits"]))
        options |= {"reference_logp": reference, "kl_coefficient": params["kl_weight"]}
    loss = graded_samples.weighted_token_loss(logp, mask, weight, **options)
    return {"loss": loss, "grad_logits": gradients(loss, logits)[0]}


def tokenwise(inputs: dict[str, Any], params: dict[str, Any], name: str) -> dict[str, Any]:
    logits = {side: leaf(inputs[f"logits_{side}"]) for side in "wl"}
    ratio, masks = {}, {}
    for side in "wl":
        rows = (inputs["query_ids"], inputs[f"response_{side}_ids"])
        logp, masks[side] = token_rows(*rows, logits[side])
        ratio[side] = logp - token_rows(*rows, tensor(inputs[f"ref_logits_{side}"]))[0]
    kept = params["preference_mask"] if "preference_mask" in params else inputs["preference_mask"]
    beta, weight = params["beta"], None if kept is None else boolean(kept)
    options: dict[str, Any] = {"link": "sigmoid", "beta": beta}
    if name.endswith("ipo"):  # (beta D - 1 / (2 beta))^2 in that code
        options = {"link": "ipo", "beta": beta**2, "scale": beta**2}
    loss = graded_samples.tokenwise_pair_loss(ratio["w"], ratio["l"], masks["w"], weight=weight, **options)
    gradient = gradients(loss, logits["w"], logits["l"])
    return {"loss": loss, "grad_logits_w": gradient[0], "grad_logits_l": gradient[1]}


def divergences(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    policy, target = Categorical(tensor(inputs["logits"])[None]), Categorical(tensor(inputs["target"]).log()[None])
    return {
        "forward_kl": categorical_kl(target.parameters, policy.parameters)[0],
        "grad_forward": policy.reverse_kl_gradient(target)[0],
        "reverse_kl": categorical_kl(policy.parameters, target.parameters)[0],
        "grad_reverse": policy.kl_gradient(target)[0],
    }
