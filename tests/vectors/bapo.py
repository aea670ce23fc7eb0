"""Golden vectors of BAPO: both forms of the search with the loss they lead to, and the Entropy-Clip Rule."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.masking import select
from rheostat.objectives.clipping import Clip
from rheostat.objectives.entropy_clip import clipped_gradient, entropy_change, softmax_entropy
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP
from rheostat.objectives.searched_bounds import Form, Range, SearchedBounds, search_bounds
from tests.vectors.baselines_llm import AGGREGATIONS
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    kind = name.partition("/")[0]
    if kind == "paper":
        low, high = (Range(params[f"a_{side}"], params[f"b_{side}"], params[f"d_{side}"]) for side in ("lo", "hi"))
        found, rest = searched(inputs, params, low, high, params["rho0"], "paper")
        return plain(rest | {"rho_at_start": found.balance_at_start, "rho": found.balance, "n_moves": found.moves})
    if kind in ("search", "edge"):
        low, high = (Range(*(params[f"ratio_{side}_{part}"] for part in ("start", "max", "step"))) for side in ("lower", "upper"))
        found, rest = searched(inputs, params, low, high, params["adv_ratio_target"], "released")
        return plain(rest | {"pos_neg_ratio": found.balance})
    if kind == "entropy_clip":
        return plain(entropy_clip(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def searched(
    inputs: dict[str, Any], params: dict[str, Any], low: Range, high: Range, target: float, form: Form
) -> tuple[SearchedBounds, dict[str, Any]]:
    """The window, the loss it gives and the gradient."""
    logp, old, mask, adv = leaf(inputs["logp"]), tensor(inputs["old_logp"]), boolean(inputs["mask"]), tensor(inputs["adv"])
    ratio: Tensor = (select(logp, mask) - select(old, mask)).detach().clamp(*LOG_CLAMP).exp()
    found = search_bounds(ratio, adv, low=low, high=high, target=target, form=form, mask=mask, sampler_logp=old)
    loss = policy_gradient(
        logp,
        adv,
        denominator_logp=old,
        mask=mask,
        clip=Clip(1 - found.low, found.high - 1, dual=params["dual_clip_c"]),
        log_clamp=LOG_CLAMP,
        aggregate=AGGREGATIONS[params["agg"]],
    ).loss
    return found, {"loss": loss, "grad_logp": gradients(loss, logp)[0], "c_low": found.low, "c_high": found.high}


def entropy_clip(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Gradient of one context, and the predicted and exact change of its entropy after a small step."""
    logits, eta = tensor(inputs["logits"]), params["eta"]
    found = clipped_gradient(logits, tensor(inputs["adv"]), tensor(inputs["ratio"]), low=params["c_low"], high=params["c_high"])
    start = softmax_entropy(logits)
    result = {"unclipped_indicator": found.kept, "C": found.constant, "grad_logits": found.gradient, "entropy": start}
    for kind, direction in (("policy", found.gradient), ("natural", found.natural)):
        step = eta * direction
        result |= {
            f"dz_{kind}_gradient": step,
            f"dH_pred_{kind}_gradient": entropy_change(logits, step),
            f"dH_exact_{kind}_gradient": softmax_entropy(logits + step) - start,
        }
    return result
