"""Golden vectors of DED: distances and the choice among answers, the filters, the choice of a teacher, and its loss."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.analysis.corpus import mean_token_entropy
from rheostat.collect.language.chosen_rows import RowChoice, fault, too_often
from rheostat.experiments.recipe import best_of
from rheostat.methods.language.ded import DED
from rheostat.policies.language.chunked_logprobs import LogitRule, token_logprobs
from rheostat.tasks.language.trajectory_choice import edit_distances, exact_max_sum, greedy_max_min
from tests.vectors.methods import batch_of, minimised, written_by
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    found = CASES.get(name, chosen if "trajectories" in inputs else None)
    if found is None:
        raise Unsupported(f"the adapter does not know a case {name!r}")
    return plain(found(inputs, params))


def chosen(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Distances of some answers, and both choices."""
    distances = edit_distances(inputs["trajectories"])
    return {
        "levenshtein": distances,
        "greedy_max_min": greedy_max_min(distances, params["P"]),
        "exact_max_sum": exact_max_sum(distances, params["P"]),
    }


def quality(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Which answers are good; a right one has the reward 1."""
    rows = zip(inputs["num_tokens"], inputs["format_ok"], inputs["answer_ok"], strict=True)
    least = DED().rows.least_reward
    keep = [
        fault(tokens, bool(formed), float(right), True, longest=params["max_tokens"], least_reward=least) is None
        for tokens, formed, right in rows
    ]
    return {"keep": keep}


def compression(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Which questions are hard enough."""
    rates = {str(number): rate for number, rate in enumerate(inputs["student_pass_rate"])}
    easy = too_often(rates, RowChoice(most_solved=params["threshold"]).most_solved)
    return {"keep": [name not in easy for name in rates]}


def teacher(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The teacher whose student is best, whatever its own score."""
    return {"selected": int(best_of({str(number): score for number, score in enumerate(inputs["student_after_smoke_sft"])}))}


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """What the method minimises, and the entropy of the corpus."""
    logits, mask = leaf(inputs["logits"]), boolean(inputs["mask"])
    chosen = integer(inputs["tokens"])
    head = torch.nn.Linear(logits.shape[-1], logits.shape[-1], bias=False)
    head.weight = torch.nn.Parameter(torch.eye(logits.shape[-1], dtype=torch.float64))
    _, entropy = token_logprobs(logits.flatten(0, 1).detach(), chosen.flatten(), head, LogitRule(), entropy=True)
    logp = logits.log_softmax(-1).gather(2, chosen[..., None])[..., 0]
    found, _ = minimised(DED(), logp, batch_of(mask, source=written_by(torch.ones_like(mask))))
    return {
        "loss": found,
        "grad_logits": gradients(found, logits)[0],
        "mean_token_entropy": mean_token_entropy(entropy.view(mask.shape), mask),
    }


CASES = {
    "quality_filter": quality,
    "question_compression": compression,
    "teacher_smoke_test": teacher,
    "sft_loss_and_token_entropy": loss,
}
