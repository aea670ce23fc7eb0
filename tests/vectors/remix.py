"""Golden vectors of ReMix: the mix-policy surrogate, KL-Convex with its schedule, the whole objective, and what a batch is made of."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.buffers.mixing import mixed_counts
from rheostat.masking import aggregate
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl_convex import convex_share, exact_kl_convex, kl_convex
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.ratio import window_centre
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    kinds = {"mixppg": mix_surrogate, "objective": objective}
    kind, _, rest = name.partition("/")
    if kind in kinds:
        return plain(kinds[kind](inputs, params))
    if rest == "lambda_schedule":
        return {"lam": [convex_share(step, **params) for step in inputs["steps"]]}
    if rest == "sampled_k3":
        return plain(sampled(inputs, params))
    if kind == "klc":
        return plain(exact(inputs, params))
    if name == "sampler/counts":
        counts = [mixed_counts(size, params["p"]) for size in inputs["batch"]]
        return {"fresh": [fresh for fresh, _ in counts], "stale": [stale for _, stale in counts]}
    raise Unsupported(f"the adapter does not know a case {name!r}")


def surrogate(logp: Tensor, inputs: dict[str, Any], eps: float) -> tuple[PolicyLoss, Tensor]:
    """The loss with its window centred on the current policy, and the centre."""
    behaviour, current, mask = tensor(inputs["behaviour_logp"]), tensor(inputs["current_start_logp"]), boolean(inputs["mask"])
    centre = window_centre(current, behaviour, log_clamp=None)
    clip = Clip(eps, eps, centre=centre)
    return policy_gradient(logp, tensor(inputs["adv"]), denominator_logp=behaviour, mask=mask, clip=clip), centre


def mix_surrogate(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Mix-PPG; the recorded ratios and centres are of all tokens, masked or not."""
    logp = leaf(inputs["logp"])
    policy, centre = surrogate(logp, inputs, params["eps"])
    ratio = window_centre(logp, tensor(inputs["behaviour_logp"]), log_clamp=None)
    return {"loss": policy.loss, "grad_logp": gradients(policy.loss, logp)[0], "ratio": ratio, "centre": centre}


def objective(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The surrogate and beta times KL-Convex at step t."""
    logp, mask = leaf(inputs["logp"]), boolean(inputs["mask"])
    policy, _ = surrogate(logp, inputs, params["eps"])
    share = convex_share(params["t"])
    penalty = kl_convex(
        logp, tensor(inputs["anchor_logp"]), tensor(inputs["previous_logp"]), share=share, estimator=params["estimator"], mask=mask
    )
    loss = policy.loss + params["beta"] * aggregate(penalty, mask)
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def sampled(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """KL-Convex from sampled tokens."""
    logp, mask = leaf(inputs["logp"]), boolean(inputs["mask"])
    penalty = kl_convex(logp, tensor(inputs["base_logp"]), tensor(inputs["previous_logp"]), share=params["lam"], mask=mask)
    loss = aggregate(penalty, mask)
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def exact(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """KL-Convex of whole distributions."""
    logits = leaf(inputs["logits"])
    penalty = exact_kl_convex(logits, tensor(inputs["base_logits"]), tensor(inputs["previous_logits"]), share=params["lam"])
    loss = aggregate(penalty, boolean(inputs["mask"]))
    return {"loss": loss, "grad_logits": gradients(loss, logits)[0]}
