"""Golden vectors of CHORD: the schedule of mu, weighted likelihoods, and the mixture of both losses."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rheostat.masking import Aggregation, natural_denominator
from rheostat.objectives.clipping import Clip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP
from rheostat.objectives.schedules import PeakSchedule
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.weights import ExpertWeight, expert_weight
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor

AGGREGATIONS: dict[str, Aggregation] = {
    "token-mean": "token-mean",
    "seq-mean-token-mean": "sequence-mean",
    "seq-mean-token-sum": "sequence-sum",
}
WEIGHTS: dict[str, ExpertWeight] = {"nll": "none", "is": "importance", "phi": "phi", "phi_cutoff": "phi"}


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    kinds = {"mu_schedule": schedule, "sft": likelihood, "mix": mixture}
    kind, _, _ = name.partition("/")
    if kind not in kinds:
        raise Unsupported(f"the adapter does not know a case {name!r}")
    return plain(kinds[kind](inputs, params))


def schedule(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """mu at some steps."""
    mu = PeakSchedule(params["peak"], params["valley"], params["warmup"], params["decay"])
    return {"mu": [mu.at(step) for step in inputs["steps"]]}


def likelihood(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The expert loss alone; its means over rows count an empty row too."""
    logp, mode = leaf(inputs["logp"]), AGGREGATIONS[params["agg"]]
    loss = weighted_likelihood(
        logp,
        mask=boolean(inputs["mask"]),
        weight=expert_weight(logp, WEIGHTS[params["weight"]]),
        ceiling=params.get("cutoff_prob"),
        aggregate=mode,
        denominator=None if mode == "token-mean" else len(logp),
    )
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def mixture(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Both losses. The authors take token means per micro-batch and weigh them by rows, which is a denominator per micro-batch."""
    logp, old, adv = leaf(inputs["logp"]), tensor(inputs["old_logp"]), tensor(inputs["adv"])
    mask, expert = boolean(inputs["mask"]), boolean(inputs["expert_mask"])
    mu = PeakSchedule(params["mu_peak"], params["mu_valley"], params["mu_warmup"], params["mu_decay"]).at(params["step"])
    weight = expert_weight(logp, "phi" if params["phi"] else "none")
    loss = logp.sum() * 0
    for rows in params["micro_batches"]:
        here = expert.new_zeros(len(expert))
        here[rows] = True
        parts: list[Tensor] = []
        for kind in (~expert, expert):
            kept = mask & (here & kind)[:, None]
            share = int((here & kind).sum()) / max(1, int(kind.sum()))
            count = natural_denominator(kept, "token-mean") / (share or 1.0)
            if kind is expert:
                parts.append(weighted_likelihood(logp, mask=kept, weight=weight, denominator=count))
            else:
                clip = Clip(params["clip"], params["clip"], dual=params["dual_clip_c"])
                policy = policy_gradient(logp, adv, denominator_logp=old, mask=kept, clip=clip, log_clamp=LOG_CLAMP, denominator=count)
                parts.append(policy.loss)
        loss = loss + (1 - mu) * parts[0] + mu * parts[1]
    return {"loss": loss, "mu": mu, "grad_logp": gradients(loss, logp)[0]}
