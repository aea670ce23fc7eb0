"""Golden vectors of RL-PLUS: the loss of mixed batches, its parts, and both group advantages."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.collect.language.language_collectors import Groups
from rheostat.credit.annotations import MixedAdvantage
from rheostat.masking import masked_mean, select
from rheostat.methods.language.rl_plus import RLPlus
from rheostat.objectives.clipping import Clip, NoClip
from rheostat.parts import Aggregate
from tests.vectors.methods import advantage as method_advantage
from tests.vectors.methods import around, batch_of, minimised, scores_of, update_terms, written_by
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
    form: Any = "grpo" if params["use_std"] else "mean-baseline"
    own = boolean(inputs["on_policy"]) if "on_policy" in inputs else torch.ones_like(group, dtype=torch.bool)
    eps = params["eps"] if params["use_std"] else None
    part = MixedAdvantage(form, eps, statistics="own" if "on_policy" in inputs else "all")
    return {"adv_per_seq": method_advantage(RLPlus(advantage=part), rewards, group, source=written_by(~own)[:, None])}


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The released loss and its parts."""
    logp, mask, external = leaf(inputs["logp"]), boolean(inputs["mask"]), boolean(inputs["prefix_mask"])
    plus, clip, by_tokens = params["strategy"] == "RL-PLUS", params["on_policy_clip"], params["norm"] == "token-mean"
    method = RLPlus(
        groups=Groups(2, 2),
        external="mixed" if plus else "certain",
        exploration=params["gamma"] if plus else 0.0,
        external_cap=params.get("off_max_clip"),
        clip=NoClip() if clip is None else Clip(clip, clip),
        aggregate=Aggregate("token-mean") if by_tokens else Aggregate("constant", logp.shape[-1]),
        entropy_coefficient=0.0,
    )
    known = {"learner_logp": tensor(inputs["old_logp"]), "advantage": tensor(inputs["adv"]), "source": written_by(external)}
    batch = batch_of(mask, **known)
    total, _ = minimised(method, logp, batch, denominators=float(mask.sum()) if by_tokens else None)
    own, experts = update_terms(method)
    parts = {
        name: term(scores_of(logp), batch, term.mask(batch).sum().clamp(min=1), around())[0]
        for name, term in (("on", own), ("off", experts))
    }
    kernel = experts.kernel(scores_of(logp), batch)
    everything = (logp - kernel["denominator_logp"]).exp()
    found = {
        "loss": total,
        "grad_logp": gradients(total, logp)[0],
        "off_pg_loss": parts["off"],
        "on_pg_loss": parts["on"],
        "off_ratio_mean": masked_mean(select(everything, external), mask & external),
    }
    return found | ({"mis_ratio": everything, "focal_weight": kernel["weight"]} if plus else {})
