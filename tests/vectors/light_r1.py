"""Golden vectors of Light-R1: NCA on pairs, group advantages, the policy's loss, the length reward, and the filter of prompts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from rheostat.credit.annotations import LengthReward
from rheostat.credit.group_advantages import grpo_advantage, to_tokens
from rheostat.experiments.recipe_stages import within
from rheostat.learner.language import LossKL
from rheostat.methods.language.dpo import DPO
from rheostat.methods.language.light_r1 import LightR1
from rheostat.objectives.clipping import Clip
from tests.vectors.methods import advantage, around, batch_of, minimised, scores_of, update_terms
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("nca_pair"):
        return plain(nca(inputs, params))
    if name.startswith("grpo_advantage"):
        return plain({"advantages": worth(inputs)})
    if name in ("grpo_policy_loss", "grpo_with_is_weight_clip"):
        return plain(policy(inputs, params, weights=name.endswith("weight_clip")))
    if name.startswith("cosine_length_reward"):
        return plain({"reward": length(inputs, params)})
    if name == "rl_prompt_filter":
        kept = within({str(number): rate for number, rate in enumerate(inputs["pass_rate"])}, params["low"], params["high"])
        return {"keep": [str(number) in kept for number in range(len(inputs["pass_rate"]))]}
    raise Unsupported(f"the adapter does not know a case {name!r}")


def worth(inputs: dict[str, Any]) -> torch.Tensor:
    """The method's advantages; a group of one, which it refuses, keeps its reward as recorded."""
    reward, group, mask = tensor(inputs["token_rewards"]).sum(1), integer(inputs["prompt_index"]), boolean(inputs["mask"])
    alone = (group[:, None] == group).sum(1) == 1
    kept = to_tokens(grpo_advantage(reward, group, singleton="keep"), mask)
    return torch.where(alone[:, None], kept, advantage(LightR1(), reward, group, mask))


def nca(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One gradient step of the preference stage."""
    chosen, rejected = leaf(inputs["logp_chosen"]), leaf(inputs["logp_rejected"])
    count = len(chosen)
    batch = batch_of(
        torch.cat([boolean(inputs["mask_chosen"]), boolean(inputs["mask_rejected"])]),
        reference_logp=torch.cat([tensor(inputs["ref_logp_chosen"]), tensor(inputs["ref_logp_rejected"])]),
        units=torch.arange(count).repeat(2),
        columns={"chosen": torch.arange(2 * count) < count},
    )
    loss, _ = minimised(DPO(link="nca", beta=params["beta"]), torch.cat([chosen, rejected]), batch)
    one, other = gradients(loss, chosen, rejected)
    return {"loss": loss, "grad_logp_chosen": one, "grad_logp_rejected": other}


def policy(inputs: dict[str, Any], params: dict[str, Any], *, weights: bool) -> dict[str, Any]:
    """One gradient step of the last stage. A token that the clip of weights holds back keeps a constant loss here, and none as recorded."""
    logp, old, mask, worth = leaf(inputs["logp"]), tensor(inputs["old_logp"]), boolean(inputs["mask"]), tensor(inputs["advantages"])
    upper = 1 + params["clip"] if weights else None
    config = LightR1(clip=Clip(params["clip"], params["clip"], upper=upper), kl=LossKL(params.get("kl_coef", 0.0)))
    reference = tensor(inputs["ref_logp"]) if "ref_logp" in inputs else None
    batch = batch_of(mask, learner_logp=old, sampler_logp=old, advantage=worth, reference_logp=reference)
    loss, _ = minimised(config, logp, batch)
    gradient = gradients(loss, logp)[0]
    if upper is not None:
        held = mask & (worth < 0) & ((logp - old).exp() > upper)
        return {"loss": loss - (-worth * upper)[held].sum() / mask.sum(), "grad_logp": gradient}
    surrogate, kl = (term(scores_of(logp), batch, mask.sum(), around())[0] for term in update_terms(config))
    cut = config.clip.clipped((logp - old).detach().exp(), worth)[mask].double().mean()
    return {"loss": loss, "grad_logp": gradient, "pg_loss": surrogate, "kl_loss": kl, "clipfrac": cut}


def length(inputs: dict[str, Any], params: dict[str, Any]) -> torch.Tensor:
    """The method's annotation on completions of these lengths."""
    part = LengthReward(
        params["min_value_correct"],
        params["max_value_correct"],
        params["min_value_wrong"],
        params["max_value_wrong"],
        params["exceed_length"],
        params["margin"],
    )
    lengths = integer(inputs["gen_len"])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    reward = torch.zeros(mask.shape, dtype=torch.float64)
    reward[:, 0] = tensor(inputs["correct"])
    batch = part(SimpleNamespace(longest=params["max_len"]), batch_of(mask, reward=reward))  # type: ignore[arg-type]
    return batch.columns["row_reward"]
