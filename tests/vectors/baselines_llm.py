"""Golden vectors of the language baselines: aggregation, advantages, policy losses, KL, importance weights and DAPO's extras."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rheostat.credit.group_advantages import grpo_advantage, informative_groups, reinforce_pp_baseline_advantage, rloo_advantage, to_tokens
from rheostat.credit.token_returns import reinforce_pp_advantage, token_gae
from rheostat.credit.token_rewards import overlong_penalty
from rheostat.errors import RheostatError
from rheostat.masking import Aggregation, aggregate, masked_sum, select
from rheostat.objectives.clipping import Clip, ClipRule, DetachedClip, LogClip, NoClip, PolicyShaping
from rheostat.objectives.kl import kl_estimate, straight_through
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP, RatioKind
from rheostat.objectives.value import value_loss
from rheostat.objectives.weights import importance_weight, rejection_mask, stale_negative_weight
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor

AGGREGATIONS: dict[str, Aggregation] = {
    "token-mean": "token-mean",
    "seq-mean-token-mean": "sequence-mean",
    "seq-mean-token-sum": "sequence-sum",
    "seq-mean-token-sum-norm": "constant",
}


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    kinds = {
        "agg": aggregation,
        "adv": advantage,
        "loss": verl_loss,
        "trl": trl_loss,
        "tis": verl_weight,
        "tis_trl": trl_weight,
        "reject": rejection,
        "kl": kl,
        "value": value,
        "dapo": dapo,
    }
    kind, _, rest = name.partition("/")
    if kind not in kinds:
        raise Unsupported(f"the adapter does not know a case {name!r}")
    return plain(kinds[kind](rest, inputs, params))


def aggregation(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """verl ``agg_loss``, with the counts of the whole batch where they are given."""
    loss, mask = leaf(inputs["loss_mat"]), boolean(inputs["mask"])
    mode = AGGREGATIONS[params["mode"]]
    denominator = params.get("batch_num_tokens", params.get("global_batch_size"))
    if mode == "constant":
        denominator = params.get("loss_scale_factor", loss.shape[-1])
    total = aggregate(loss, mask, mode, denominator=denominator, data_parallel_size=params.get("dp_size", 1))
    return {"loss": total, "grad_loss_mat": gradients(total, loss)[0]}


def advantage(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Group advantages of verl and TRL, REINFORCE++ and GAE."""
    if name.startswith("trl_grpo"):
        rewards = tensor(inputs["rewards"])
        group = torch.arange(len(rewards)).repeat_interleave(rewards.shape[1])
        return {"adv": grpo_advantage(rewards.flatten(), group, scale=params["scale"], eps=params["eps"]).view_as(rewards)}
    mask = boolean(inputs["mask"])
    if name.startswith("gae"):
        whitened, returns = token_gae(
            tensor(inputs["token_rewards"]), tensor(inputs["values"]), mask, gamma=params["gamma"], lam=params["lam"], fill_masked=False
        )
        return {"adv_whitened": whitened, "returns": returns}
    if name.startswith("reinforce_pp_gamma"):
        rewards = tensor(inputs["token_rewards"])
        whitened, returns = reinforce_pp_advantage(rewards, mask, gamma=params["gamma"], eps=params["whiten_eps"], reset_at_mask=True)
        return {"adv": whitened, "returns": returns}
    rewards, group = tensor(inputs["rewards"]), integer(inputs["group"])
    if name.startswith("grpo"):
        scale = "group" if params["norm_by_std"] else "none"
        return {"adv": to_tokens(grpo_advantage(rewards, group, scale=scale, eps=params["eps"]), mask)}
    if name == "rloo":
        return {"adv": to_tokens(rloo_advantage(rewards, group), mask)}
    if name == "reinforce_pp_baseline":
        return {"adv": reinforce_pp_baseline_advantage(rewards, group, mask, eps=params["whiten_eps"])}
    raise Unsupported(f"the adapter does not know an advantage {name!r}")


def verl_loss(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Policy losses of verl, and LUFFY's."""
    logp, old, mask, adv = leaf(inputs["logp"]), tensor(inputs["old_logp"]), boolean(inputs["mask"]), tensor(inputs["adv"])
    rows, length = logp.shape
    kind = name.partition("/")[0]
    if kind == "luffy":
        loss = luffy_loss(logp, old, mask, adv, boolean(inputs["prefix_mask"]), params)
        return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}
    clip: ClipRule
    ratio: RatioKind = "token"
    denominator_logp: Tensor | None = old
    clamp: tuple[float, float] | None = LOG_CLAMP
    mode = AGGREGATIONS.get(params.get("agg", "token-mean"), "sequence-mean")
    count: int | None = length if mode == "constant" else None
    if kind.startswith("gspo"):
        clip, ratio, clamp = Clip(params["clip_low"], params["clip_high"]), "sequence-token", (-math.inf, 10.0)
    elif kind == "gmpo":
        clip, ratio, clamp, count = LogClip(params["log_clip_low"], params["log_clip_high"]), "sequence", None, rows
    elif kind.startswith("cispo"):
        clip = DetachedClip(params["clip_low"], params["clip_high"])
    elif kind == "reinforce_logp":
        clip, denominator_logp = DetachedClip(), None
    else:
        both = params.get("clip_ratio")
        low, high = (params.get(f"clip_ratio_{side}", params.get(f"clip_{side}")) for side in ("low", "high"))
        clip = Clip(both if low is None else low, both if high is None else high, dual=params["dual_clip_c"])
    weight = tensor(inputs["sampler_weights"]) if "sampler_weights" in inputs else None
    loss = policy_gradient(
        logp,
        adv,
        denominator_logp=denominator_logp,
        mask=mask,
        clip=clip,
        ratio=ratio,
        log_clamp=clamp,
        weight=weight,
        aggregate=mode,
        denominator=count,
    ).loss
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def luffy_loss(logp: Tensor, old: Tensor, mask: Tensor, adv: Tensor, prefix: Tensor, params: dict[str, Any]) -> Tensor:
    """Own tokens by importance sampling, expert tokens by their (shaped) probability, one constant denominator."""
    if params["on_policy_clip"] is not None:
        raise Unsupported("the released flags do not clip own tokens")
    shaping: ClipRule = NoClip() if params["reshape"] == "no_reshape" else PolicyShaping(float(params["reshape"].rpartition("_")[2]))
    length = logp.shape[-1]
    own = policy_gradient(
        logp, adv, denominator_logp=old, mask=mask & ~prefix, clip=NoClip(), aggregate="constant", denominator=length
    ).loss
    expert = policy_gradient(
        logp,
        adv,
        denominator_logp=torch.zeros_like(logp),
        mask=mask & prefix,
        clip=shaping,
        aggregate="constant",
        denominator=length,
    ).loss
    return own + expert


def trl_loss(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The GRPO trainer's losses and the RLOO trainer's."""
    logp, old, mask = leaf(inputs["logp"]), tensor(inputs["old_logp"]), boolean(inputs["mask"])
    if name.startswith("rloo"):
        return rloo_loss(logp, old, mask, tensor(inputs["adv_per_seq"]), params["clip"])
    adv = tensor(inputs["adv_per_seq"]).unsqueeze(-1).expand_as(logp)
    rows = len(logp)
    kind = params["loss_type"]
    clip: ClipRule = Clip(params["eps_low"], params["eps_high"], upper=params["delta"])
    if kind == "cispo":
        clip = DetachedClip(None, params["eps_high"] - 1)
    modes: dict[str, tuple[Aggregation, int | None]] = {
        "grpo": ("sequence-mean", rows),
        "bnpo": ("token-mean", None),
        "dapo": ("token-mean", None),
        "cispo": ("token-mean", None),
        "dr_grpo": ("constant", rows * params["max_completion_length"]),
    }
    mode, count = modes[kind]
    threshold = params["off_policy_mask_threshold"]
    weight = None if threshold is None else stale_negative_weight(logp, old, adv, mask, threshold=threshold)
    loss = policy_gradient(
        logp,
        adv,
        denominator_logp=old,
        mask=mask,
        clip=clip,
        ratio=params["importance_level"],
        weight=weight,
        aggregate=mode,
        denominator=count,
    ).loss
    if params["beta"]:
        divergence = kl_estimate(logp, tensor(inputs["ref_logp"]), "k3", mask=mask)
        loss = loss + params["beta"] * aggregate(divergence, mask, mode, denominator=count)
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def rloo_loss(logp: Tensor, old: Tensor, mask: Tensor, adv: Tensor, clip: float) -> dict[str, Any]:
    """TRL's RLOO treats the completion as one action; without a mask, because it counts an empty row too, with ratio 1."""
    loss = policy_gradient(masked_sum(logp, mask, -1), adv, denominator_logp=masked_sum(old, mask, -1), clip=Clip(clip, clip)).loss
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def verl_weight(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """verl's truncated importance weights, 0 outside the mask."""
    mask = boolean(inputs["mask"])
    weight = importance_weight(
        tensor(inputs["train_logp"]),
        tensor(inputs["sampler_logp"]),
        mask=mask,
        level=params["level"],
        cap=params["threshold"],
        batch_normalise=params["batch_normalize"],
    )
    return {"weights": select(weight, mask)}


def trl_weight(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """TRL's weights: 1 outside the mask, one column where a weight belongs to the row."""
    level, _, over_cap = params["mode"].partition("_")
    weight = importance_weight(
        tensor(inputs["train_logp"]),
        tensor(inputs["sampler_logp"]),
        mask=boolean(inputs["mask"]),
        level=level,
        cap=params["clip_max"],
        over_cap=over_cap,
        log_clamp=None,
    )
    return {"weights": weight if level == "token" else weight[:, :1]}


def rejection(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """verl's rejection masks; its bounds of k1 are ratios, of k2 and k3 one upper bound."""
    *where, statistic = params["option"].split("_")
    bounds = [float(bound) for bound in str(params["threshold"]).split("_")]
    low, high = [math.log(bound) for bound in bounds] if statistic == "k1" else [None, bounds[0]]
    mask = boolean(inputs["mask"])
    kept = rejection_mask(
        tensor(inputs["train_logp"]), tensor(inputs["sampler_logp"]), mask, statistic=statistic, reach=where[-1], low=low, high=high
    )
    return {"kept_mask": kept}


def kl(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Estimators and their gradients. verl refuses the names with a plus, and so does the library."""
    logp, reference = leaf(inputs["logp"]), tensor(inputs["ref_logp"])
    clamps = {"log_clamp": params.get("log_clamp", 20.0), "value_clamp": params.get("value_clamp", 10.0)}  # verl's, always on there
    if "forward" in params:
        forward = kl_estimate(logp, reference, params["forward"], **clamps)
        value = straight_through(forward, kl_estimate(logp, reference, params["backward"], **clamps))
        return {"value_sum": value.sum(), "grad_of_sum": gradients(value.sum(), logp)[0]}
    try:
        value = kl_estimate(logp, reference, params["estimator"], **clamps)
    except RheostatError:
        return {"error": "NotImplementedError"}  # verl's exception for the same refusal
    return {"value": value, "grad_of_sum": gradients(value.sum(), logp)[0]}


def value(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """verl's clipped value loss."""
    prediction, mask = leaf(inputs["vpred"]), boolean(inputs["mask"])
    loss = value_loss(
        prediction,
        tensor(inputs["returns"]),
        old_value=tensor(inputs["values_old"]),
        clip=params["clip"],
        scale=params["factor"],
        mask=mask,
        aggregate=AGGREGATIONS[params["agg"]],
    )
    return {"loss": loss, "grad_vpred": gradients(loss, prediction)[0]}


def dapo(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Overlong shaping and the group filter."""
    if name == "overlong_penalty":
        penalty = overlong_penalty(
            integer(inputs["lengths"]), max_length=params["max_len"], buffer=params["buffer"], factor=params["factor"]
        )
        return {"penalty": penalty}
    if name == "group_filter":
        metric = tensor(inputs["metric"])
        group = torch.arange(len(metric)).repeat_interleave(metric.shape[1])
        return {"keep": informative_groups(metric.flatten(), group).view_as(metric)[:, 0]}
    raise Unsupported(f"the adapter does not know a case 'dapo/{name}'")
