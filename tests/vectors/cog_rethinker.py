"""Golden vectors of Cog-Rethinker: which problems go on, what is learned from and imitated, the joint loss, and the retrieval of traces."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.buffers.traces import Trace, TraceBuffer, bm25_scores
from rheostat.collect.language.problem_stages import NOT_RUN, STAGES, run_stages
from rheostat.methods.language.cog_rethinker import CogRethinker
from rheostat.objectives.clipping import Clip
from tests.vectors.methods import around, batch_of, minimised, scores_of, update_terms, written_by
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name == "stage_routing":
        return plain(routing(inputs, params))
    if name == "bm25_demo_retrieval":
        return plain(retrieval(inputs, params))
    if name.startswith("joint_loss") or name == "no_sft_samples_and_equal_rewards":
        return plain(joint(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def routing(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The routes of ten problems; an attempt finds what is recorded."""
    assert params["not_run"] == NOT_RUN
    recorded = [integer(inputs[f"correct_{name}"]) for name in ("direct", "decomposition", "reflection")]
    asked: dict[int, list[int]] = {}

    def attempt(stage: int, failing: list[int]) -> tuple[list[int], Tensor, Tensor]:
        asked[stage] = failing
        return failing, recorded[stage][failing], torch.full((len(failing),), params["group"])

    graded = torch.full((len(recorded[0]),), params["group"])
    tally = run_stages(recorded[0], graded, params["group"], attempt, STAGES[-1])
    assert torch.equal(tally.right, torch.stack(recorded))
    return {
        "to_decomposition": asked[1],
        "to_reflection": asked[2],
        "rl_groups_problem_stage": [list(pair) for pair in tally.learned(STAGES)],
        "sft_problem_stage": [list(pair) for pair in tally.taught()],
        "dropped": tally.dropped(),
    }


def joint(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Both losses of the method's own update, on sampled rows and rows to imitate in one batch."""
    own, imitated = leaf(inputs["logp"]), leaf(inputs["sft_logp"]) if inputs["sft_logp"] else None
    method = CogRethinker(clip=Clip(params["clip_low"], params["clip_high"]), sft_weight=params["sft_weight"])
    parts = [own] if imitated is None else [own, imitated]
    mask = torch.cat([boolean(inputs["mask"]), *([] if imitated is None else [boolean(inputs["sft_mask"])])])
    below = [torch.zeros_like(part) for part in parts[1:]]
    expert = torch.cat([torch.zeros(own.shape, dtype=torch.bool), *(torch.ones(part.shape, dtype=torch.bool) for part in parts[1:])])
    batch = batch_of(
        mask,
        learner_logp=torch.cat([tensor(inputs["old_logp"]), *below]),
        advantage=torch.cat([tensor(inputs["advantages"]), *below]),
        source=written_by(expert),
    )
    logp = torch.cat(parts)
    loss, _ = minimised(method, logp, batch)
    found = {"loss": loss} | dict(zip(["grad_logp", "grad_sft_logp"], gradients(loss, *parts), strict=False))
    if not below:
        return found
    terms = update_terms(method)
    values = [term(scores_of(logp), batch, term.denominator(batch, around()), around())[0] for term in terms]
    return found | dict(zip(["rl_loss", "sft_loss"], values, strict=True))


def retrieval(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Scores, and the order in which a buffer hands out its traces."""
    scores = bm25_scores(inputs["query"], inputs["docs"], k1=params["k1"], b=params["b"])
    buffer = TraceBuffer(9, k1=params["k1"], b=params["b"])
    buffer.add(Trace(str(number), " ".join(document), "") for number, document in enumerate(inputs["docs"]))
    order = [int(trace.key) for trace in buffer.nearest(" ".join(inputs["query"]), 9, without="")]
    assert order == np.argsort(-scores, kind="stable").tolist()
    return {"scores": scores.tolist(), "ranking": order}
