"""Golden vectors of POLAR, through the method's own parts."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.collect.language.referenced import pieces, without_thinking
from rheostat.methods.language.polar import POLAR
from rheostat.objectives.policy_discriminator import score_penalty
from rheostat.policies.language.model import TokenScores
from rheostat.tasks.language.preference_rows import PreferencePrompts, triples_of
from tests.vectors.baselines_preference import answers
from tests.vectors.methods import around
from tests.vectors.tools import gradients, leaf, plain


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    return plain(next(case for start, case in FAMILIES.items() if name.startswith(start))(name, inputs, params))


def ranking(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The loss on pairs of candidates of one token each, after which the head says the score."""
    chosen, rejected = leaf(inputs["score_chosen"]), leaf(inputs["score_rejected"])
    (each,) = POLAR(focal=name == "bt_focal").compose().update_of().terms
    batch, score = answers(chosen, rejected)
    loss, _ = each.term(TokenScores(torch.zeros_like(score), next_value=score), batch, each.term.denominator(batch, around()), around())
    gradient = gradients(loss, chosen, rejected)
    return {"loss": loss, "grad_chosen": gradient[0], "grad_rejected": gradient[1]}


def barrier(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """What large scores cost, in single precision as in the official function: there the clamp is a little nearer to 5."""
    scores = leaf(inputs["scores"])
    penalty = score_penalty(scores.float(), "log-barrier").sum() * params["avg_factor"]
    return {"penalty": penalty, "grad": gradients(penalty, scores)[0]}


class Words:
    """A tokenizer of words between blanks; separator and end have ids of their own."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.words: list[str] = []
        self.separator, self.end = -1, -2
        self.special = {self.separator: params["split_token"], self.end: params["reward_token"], -3: "\n"}

    def encode(self, text: str) -> list[int]:
        """Ids of the words."""
        self.words += text.split()
        first = len(self.words) - len(text.split())
        return list(range(first, len(self.words)))

    def decode(self, ids: list[int]) -> str:
        """The text of a piece."""
        return " ".join(self.special[each] if each < 0 else self.words[each] for each in ids)


def written(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Rows as texts; the fine-tuning wrapper joins with a line break."""
    found, words = [], Words(params)
    join = [-3] if name == "format_sft" else []
    lengths = {"longest": params["max_length"], "longest_answer": params["max_response_length"]}
    for each in zip(inputs["prompt"], inputs["reference"], inputs["candidate"], strict=True):
        ids = [words.encode(text) for text in each]
        before, after = pieces(*ids, join=join, separator=words.separator, end=words.end, **lengths)
        found.append("".join(words.decode(piece) for piece in before + after))
    return {"text": found}


def thinking(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Candidates without their block of thinking."""
    return {"answer": [without_thinking(text) for text in inputs["text"]]}


def zoo(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """All triples of a prompt's answers."""
    return {"triplets_ref_pos_neg": [list(each) for each in triples_of(inputs["policy_id_per_trajectory"])]}


def ranked(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The triple of three ranked answers."""
    row = {"prompt": "?", "completions": inputs["ranking_best_to_worst"], "ranks": [1, 2, 3]}
    ((_, prompt),) = PreferencePrompts([row], "references", validation_share=0.0).named
    return {column: prompt.columns[column] for column in ("reference", "chosen", "rejected")}


FAMILIES = {
    "bt_": ranking, "log_barrier": barrier, "format_": written, "strip_": thinking, "valid_": zoo, "finetune_": ranked,
}  # fmt: skip
