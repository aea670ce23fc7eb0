"""Golden vectors of BAPO: both forms of the search with the loss they lead to, and the Entropy-Clip Rule."""

from __future__ import annotations

from typing import Any

from rheostat.methods.language.bapo import BAPO
from rheostat.objectives.entropy_clip import clipped_gradient, entropy_change, softmax_entropy
from rheostat.objectives.searched_bounds import Form, SearchedBounds
from rheostat.objectives.searched_clip import SearchedClip
from rheostat.parts import Aggregate
from tests.vectors.baselines_llm import AGGREGATIONS
from tests.vectors.methods import batch_of, minimised, update_terms
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor

Bound = tuple[float, float, float]
"""Start, end and step of a bound of the ratio."""


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    kind = name.partition("/")[0]
    if kind == "paper":
        low, high = ((params[f"a_{side}"], params[f"b_{side}"], params[f"d_{side}"]) for side in ("lo", "hi"))
        found, rest = searched(inputs, params, low, high, params["rho0"], "paper")
        return plain(rest | {"rho_at_start": found.balance_at_start, "rho": found.balance, "n_moves": found.moves})
    if kind in ("search", "edge"):
        names = ("start", "max", "step")
        low, high = (
            (params[f"ratio_{side}_{names[0]}"], *(params[f"ratio_{side}_{name}"] for name in names[1:])) for side in ("lower", "upper")
        )
        found, rest = searched(inputs, params, low, high, params["adv_ratio_target"], "released")
        return plain(rest | {"pos_neg_ratio": found.balance})
    if kind == "entropy_clip":
        return plain(entropy_clip(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def searched(
    inputs: dict[str, Any], params: dict[str, Any], low: Bound, high: Bound, target: float, form: Form
) -> tuple[SearchedBounds, dict[str, Any]]:
    """The window, the loss it gives and the gradient."""
    logp, old, adv = leaf(inputs["logp"]), tensor(inputs["old_logp"]), tensor(inputs["adv"])
    clip = SearchedClip(
        1 - low[0],
        high[0] - 1,
        form,
        target,
        low_end=1 - low[1],
        low_step=low[2],
        high_end=high[1] - 1,
        high_step=high[2],
        dual=params["dual_clip_c"],
    )
    method = BAPO(clip=clip, aggregate=Aggregate(AGGREGATIONS[params["agg"]]))
    batch = batch_of(boolean(inputs["mask"]), sampler_logp=old, learner_logp=old, advantage=adv)
    found = update_terms(method)[0].begin(None, logp, batch).facts["bounds"]
    loss, _ = minimised(method, logp, batch)
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
