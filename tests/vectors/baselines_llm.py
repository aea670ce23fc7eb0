"""Golden vectors of the language baselines: aggregation, advantages, policy losses, KL, importance weights and DAPO's extras."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rheostat.credit.annotations import GroupAdvantage
from rheostat.credit.group_advantages import (
    grpo_advantage,
    informative_groups,
    reinforce_pp_baseline_advantage,
    rloo_advantage,
    to_tokens,
)
from rheostat.credit.token_returns import reinforce_pp_advantage, token_gae
from rheostat.credit.token_rewards import overlong_penalty
from rheostat.errors import RheostatError
from rheostat.learner.language import LossKL, RewardKL
from rheostat.masking import Aggregation, aggregate, select
from rheostat.methods.language.cispo import CISPO
from rheostat.methods.language.dapo import DAPO
from rheostat.methods.language.dr_grpo import DrGRPO
from rheostat.methods.language.gmpo import GMPO
from rheostat.methods.language.grpo import GRPO
from rheostat.methods.language.gspo import GSPO
from rheostat.methods.language.luffy import LUFFY
from rheostat.methods.language.reinforce import Reinforce
from rheostat.methods.language.rl_plus import RLPlus
from rheostat.methods.language.rloo import RLOO
from rheostat.methods.language.tis import TIS
from rheostat.objectives.clipping import Clip, DetachedClip, LogClip
from rheostat.objectives.kl import kl_estimate, straight_through
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.terms import SamplerCorrection
from rheostat.objectives.value import value_loss
from rheostat.objectives.weights import importance_weight, rejection_mask, stale_negative_weight
from rheostat.parts import Aggregate
from tests.vectors.methods import advantage as method_advantage
from tests.vectors.methods import batch_of, minimised, written_by
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor

AGGREGATIONS: dict[str, Aggregation] = {
    "token-mean": "token-mean",
    "seq-mean-token-mean": "sequence-mean",
    "seq-mean-token-sum": "sequence-sum",
    "seq-mean-token-sum-norm": "constant",
}

TRL_MODES: dict[str, Aggregation] = {"grpo": "sequence-mean", "bnpo": "token-mean", "dapo": "token-mean", "dr_grpo": "constant"}


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
        if params["scale"] == "batch":  # no method's
            found = grpo_advantage(rewards.flatten(), group, scale="batch", eps=params["eps"])
        else:
            found = method_advantage(by_deviation(params["scale"] == "group", params["eps"]), rewards.flatten(), group)
        return {"adv": found.view_as(rewards)}
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
    if name == "reinforce_pp_baseline":  # whitened together with rows that are alone in their group, which the method leaves out
        return {"adv": reinforce_pp_baseline_advantage(rewards, group, mask, eps=params["whiten_eps"])}
    if name == "rloo":
        found, theirs = method_advantage(RLOO(kl=RewardKL(0.0)), rewards, group, mask), rloo_advantage(rewards, group)
    elif name.startswith("grpo"):
        found = method_advantage(by_deviation(params["norm_by_std"], params["eps"]), rewards, group, mask)
        theirs = grpo_advantage(rewards, group, scale="group" if params["norm_by_std"] else "none", eps=params["eps"])
    else:
        raise Unsupported(f"the adapter does not know an advantage {name!r}")
    alone = (group[:, None] == group).sum(1) == 1  # verl keeps their reward, the methods have nothing to compare it with
    return {"adv": torch.where(alone[:, None], to_tokens(theirs, mask), found)}


def by_deviation(scaled: bool, eps: float) -> Any:
    """GRPO, or without the group's deviation Dr. GRPO."""
    return GRPO(advantage=GroupAdvantage("grpo", eps)) if scaled else DrGRPO()


def verl_loss(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Policy losses of verl, and LUFFY's: what the methods' updates minimise."""
    logp, old, mask, adv = leaf(inputs["logp"]), tensor(inputs["old_logp"]), boolean(inputs["mask"]), tensor(inputs["adv"])
    rows, length = logp.shape
    kind = name.partition("/")[0]
    mode = AGGREGATIONS.get(params.get("agg", "token-mean"), "sequence-mean")
    aggregation = Aggregate(mode, length) if mode == "constant" else Aggregate(mode)
    known: dict[str, Tensor | None] = {"learner_logp": old, "advantage": adv}
    method, count = verl_method(kind, params, aggregation), None
    if kind == "luffy":
        method, known["source"] = luffy_method(params, length), written_by(boolean(inputs["prefix_mask"]))
    if kind == "gmpo":
        count = float(rows)
    if kind == "reinforce_logp":  # its only step compares the learner with itself
        known["learner_logp"] = None
    if "sampler_weights" in inputs:  # of a sampler for which TIS finds these weights
        method = TIS(clip=method.clip, correction=SamplerCorrection("token", math.inf), aggregate=aggregation)
        known["sampler_logp"] = old - tensor(inputs["sampler_weights"]).log()
    loss, _ = minimised(method, logp, batch_of(mask, **known), denominators=count)
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def verl_method(kind: str, params: dict[str, Any], aggregation: Aggregate) -> Any:
    """The method of a loss of verl."""
    if kind.startswith("gspo"):
        return GSPO(clip=Clip(params["clip_low"], params["clip_high"]), aggregate=aggregation)
    if kind == "gmpo":
        return GMPO(clip=LogClip(params["log_clip_low"], params["log_clip_high"]), aggregate=aggregation)
    if kind.startswith("cispo"):
        return CISPO(clip=DetachedClip(params["clip_low"], params["clip_high"]), aggregate=aggregation)
    if kind == "reinforce_logp":
        return Reinforce(aggregate=aggregation)
    both = params.get("clip_ratio")
    low, high = (params.get(f"clip_ratio_{side}", params.get(f"clip_{side}")) for side in ("low", "high"))
    clip = Clip(both if low is None else low, both if high is None else high, dual=params.get("dual_clip_c"))
    return GRPO(clip=clip, aggregate=aggregation, kl=LossKL(0.0))


def luffy_method(params: dict[str, Any], length: int) -> Any:
    """LUFFY, or where an expert's probability is not shaped RL-PLUS without what it adds."""
    if params["on_policy_clip"] is not None:
        raise Unsupported("the released flags do not clip own tokens")
    total = Aggregate("constant", length)
    if params["reshape"] == "no_reshape":
        return RLPlus(external="certain", exploration=0.0, entropy_coefficient=0.0, aggregate=total)
    return LUFFY(shaping=float(params["reshape"].rpartition("_")[2]), aggregate=total)


def trl_loss(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The GRPO trainer's losses and the RLOO trainer's."""
    logp, old, mask = leaf(inputs["logp"]), tensor(inputs["old_logp"]), boolean(inputs["mask"])
    if name.startswith("rloo"):
        return rloo_loss(logp, old, mask, tensor(inputs["adv_per_seq"]), params["clip"])
    adv = tensor(inputs["adv_per_seq"]).unsqueeze(-1).expand_as(logp)
    threshold = params["off_policy_mask_threshold"]
    if threshold is not None:  # no method's
        return stale_loss(logp, old, mask, adv, params)
    batch = batch_of(mask, learner_logp=old, advantage=adv, reference_logp=tensor(inputs["ref_logp"]))
    count = float(len(logp)) if params["loss_type"] == "grpo" else None
    loss, _ = minimised(trl_method(params), logp, batch, longest=params["max_completion_length"], denominators=count)
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def trl_method(params: dict[str, Any]) -> Any:
    """The method of a loss of TRL's GRPO trainer."""
    clip, kl, kind = Clip(params["eps_low"], params["eps_high"], upper=params["delta"]), LossKL(params["beta"]), params["loss_type"]
    if kind == "cispo":
        return CISPO(clip=DetachedClip(None, params["eps_high"] - 1), kl=kl)
    if params["importance_level"] == "token" and kind in ("dapo", "dr_grpo"):
        return DAPO(clip=clip, kl=kl) if kind == "dapo" else DrGRPO(clip=clip, kl=kl)
    return GRPO(clip=clip, ratio=params["importance_level"], clamp_log_ratio=False, aggregate=Aggregate(TRL_MODES[kind]), kl=kl)


def stale_loss(logp: Tensor, old: Tensor, mask: Tensor, adv: Tensor, params: dict[str, Any]) -> dict[str, Any]:
    """TRL's mask of stale rows with a negative advantage, on the kernel."""
    if params["loss_type"] not in TRL_MODES or params["beta"]:
        raise Unsupported("the mask of stale rows stands beside no KL and no constant weight")
    mode = TRL_MODES[params["loss_type"]]
    counts = {"sequence-mean": len(logp), "constant": len(logp) * params["max_completion_length"]}
    loss = policy_gradient(
        logp,
        adv,
        denominator_logp=old,
        mask=mask,
        clip=Clip(params["eps_low"], params["eps_high"], upper=params["delta"]),
        ratio=params["importance_level"],
        weight=stale_negative_weight(logp, old, adv, mask, threshold=params["off_policy_mask_threshold"]),
        aggregate=mode,
        denominator=counts.get(mode),
    ).loss
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def rloo_loss(logp: Tensor, old: Tensor, mask: Tensor, adv: Tensor, clip: float) -> dict[str, Any]:
    """TRL's RLOO treats the completion as one action; it counts an empty row too, with ratio 1."""
    batch = batch_of(mask, learner_logp=old, advantage=adv[:, None].expand_as(logp))
    loss, _ = minimised(RLOO(clip=Clip(clip, clip), kl=RewardKL(0.0)), logp, batch, denominators=float(len(logp)))
    loss = loss - adv[~mask.any(1)].sum() / len(logp)
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
