"""Golden vectors of CHORD: the schedule of mu, weighted likelihoods, and the mixture of both losses."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.collect.language.language_collectors import Groups
from rheostat.masking import Aggregation, natural_denominator
from rheostat.methods.language.chord import CHORD
from rheostat.objectives.clipping import Clip
from rheostat.objectives.schedules import PeakSchedule
from rheostat.objectives.weights import ExpertWeight
from rheostat.parts import Aggregate
from tests.vectors.methods import around, batch_of, minimised, scores_of, update_terms, written_by
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
    logp, mask, mode = leaf(inputs["logp"]), boolean(inputs["mask"]), AGGREGATIONS[params["agg"]]
    method = CHORD(
        groups=Groups(2, 2), expert_weight=WEIGHTS[params["weight"]], cutoff=params.get("cutoff_prob"), aggregate=Aggregate(mode)
    )
    _, imitation = update_terms(method)
    batch = batch_of(mask, source=written_by(torch.ones_like(mask)))
    count = imitation.denominator(batch, around()) if mode == "token-mean" else torch.tensor(len(logp))
    loss, _ = imitation(scores_of(logp), batch, count, around())
    return {"loss": loss, "grad_logp": gradients(loss, logp)[0]}


def mixture(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Both losses. The authors take token means per micro-batch and weigh them by rows, which is a denominator per micro-batch."""
    logp, mask, expert = leaf(inputs["logp"]), boolean(inputs["mask"]), boolean(inputs["expert_mask"])
    mu = PeakSchedule(params["mu_peak"], params["mu_valley"], params["mu_warmup"], params["mu_decay"])
    method = CHORD(
        groups=Groups(2, 2),
        mu=mu,
        expert_weight="phi" if params["phi"] else "none",
        clip=Clip(params["clip"], params["clip"], dual=params["dual_clip_c"]),
    )
    source = written_by(expert[:, None].expand(mask.shape))
    batch = batch_of(mask, learner_logp=tensor(inputs["old_logp"]), advantage=tensor(inputs["adv"]), source=source)
    loss = logp.sum() * 0
    for rows in params["micro_batches"]:
        counts = []
        for kind in (~expert, expert):
            share = int(kind[rows].sum()) / max(1, int(kind.sum()))
            counts.append(natural_denominator(mask[rows] & kind[rows][:, None], "token-mean") / (share or 1.0))
        loss = loss + minimised(method, logp[rows], batch[rows], update=params["step"], denominators=counts)[0]
    return {"loss": loss, "mu": mu.at(params["step"]), "grad_logp": gradients(loss, logp)[0]}
