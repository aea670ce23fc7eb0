"""Golden vectors of ReMix: the mix-policy surrogate, KL-Convex with its schedule, the whole objective, and what a batch is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.mixing import mixed_counts
from rheostat.masking import aggregate
from rheostat.methods.language.remix import ReMix
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl_convex import convex_share, exact_kl_convex, kl_convex
from rheostat.objectives.ratio import window_centre
from rheostat.trajectories import Source
from tests.vectors.methods import batch_of, minimised
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor

ANCHORS = {"reference_logp": "anchor_logp", "previous_logp": "previous_logp"}


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


def surrogate(logp: Tensor, inputs: dict[str, Any], update: int = 0, **options: Any) -> Tensor:
    """What ReMix minimises on rows that are all taken as stale, so that the recorded sampler counts."""
    mask = boolean(inputs["mask"])
    anchors = {name: tensor(inputs[key]) for name, key in ANCHORS.items() if key in inputs}
    batch = batch_of(
        mask,
        sampler_logp=tensor(inputs["behaviour_logp"]),
        learner_logp=tensor(inputs["current_start_logp"]),
        advantage=tensor(inputs["adv"]),
        source=torch.full(mask.shape, int(Source.REPLAY)),
        **anchors,
    )
    return minimised(ReMix(clamp_log_ratio=False, **options), logp, batch, update=update)[0]


def mix_surrogate(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Mix-PPG; the recorded ratios and centres are of all tokens, masked or not."""
    logp = leaf(inputs["logp"])
    loss = surrogate(logp, inputs, clip=Clip(params["eps"], params["eps"]), kl_coefficient=0.0)
    behaviour = tensor(inputs["behaviour_logp"])
    ratio = window_centre(logp, behaviour, log_clamp=None)
    centre = window_centre(tensor(inputs["current_start_logp"]), behaviour, log_clamp=None)
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0], "ratio": ratio, "centre": centre}


def objective(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The surrogate and beta times KL-Convex at step t, which counts from 1."""
    logp = leaf(inputs["logp"])
    options = {"clip": Clip(params["eps"], params["eps"]), "kl_coefficient": params["beta"], "kl_estimator": params["estimator"]}
    loss = surrogate(logp, inputs, params["t"] - 1, **options)
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
