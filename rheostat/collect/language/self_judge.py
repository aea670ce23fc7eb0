"""The policy as a judge of pairs: which of two answers it would call the better one, as a probability.

The question shows both answers and ends where one of two verdict tokens follows; ``sigmoid(l_1 - l_2)`` of their logits is the probability
that the first answer is the better one. Small judges are ruled by the order in which they see two answers: whoever asks one asks in both
orders (:func:`~rheostat.credit.preference_measures.both_orders`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rheostat.collect.language.experts import token_rows
from rheostat.errors import RheostatError
from rheostat.tasks.language.encoding import encode_prompt
from rheostat.tasks.language.task_interface import Prompt
from rheostat.trajectories import Trajectories


class SelfJudge:
    """A language model of the learner as a judge of pairs.

    Args:
        context: of the learner.
        model: name of the model that judges.

    Raises:
        RheostatError: the tokenizer does not write the task's verdicts as one token each.
    """

    def __init__(self, context: Any, model: str) -> None:
        self.context, self.model = context, model
        self.verdicts = verdict_ids(context.setup)

    def __call__(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Probabilities float64 ``[N]`` that the first answer is the better one, constants; NaN where the question is too long.

        Raises:
            RheostatError: a question that cannot be encoded.
        """
        setup = self.context.setup
        asked = [setup.task.comparison(*each) for each in zip(prompts, first, second, strict=True)]
        ids = [encode_prompt(each, setup.encoder.tokenizer, setup.encoder.template_options) for each in asked]
        fits = [number for number, each in enumerate(ids) if len(each) < (setup.policy.longest or math.inf)]
        found = torch.full((len(asked),), math.nan, dtype=torch.float64)
        if fits:
            found[torch.tensor(fits)] = self.difference([ids[number] for number in fits]).double().sigmoid()
        return found

    def difference(self, questions: list[list[int]]) -> Tensor:
        """``[N]``: by how much the logit of the first verdict is the larger one, at temperature 1."""
        one, other = self.verdicts
        setup = self.context.setup
        action, attention, mask, _ = token_rows([(ids, [one]) for ids in questions], setup.policy.pad_id)
        nothing = torch.zeros(action.shape)
        rows = Trajectories(
            action=action,
            attention=attention,
            mask=mask,
            reward=nothing,
            terminated=mask,
            truncated=torch.zeros_like(mask),
            sampler_logp=nothing,
            group=torch.arange(len(action))[:, None].expand(action.shape),
            batch_size=list(action.shape),
        )
        with torch.no_grad():
            found: Tensor = self.context.read_logits(rows, lambda logits, _: logits[:, one] - logits[:, other], self.model)
        return found.sum(1)


def verdict_ids(setup: Any) -> tuple[int, int]:
    """Token ids of the task's two verdicts.

    Raises:
        RheostatError: the tokenizer writes one of them in several tokens, with a token that it does not know, or both alike.
    """
    tokenizer = setup.policy.tokenizer
    try:
        found = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in setup.task.verdicts]
    except Exception:  # a tokenizer without an unknown token raises a bare Exception
        found = [[], []]
    if any(len(ids) != 1 or ids[0] == tokenizer.unk_token_id for ids in found) or found[0] == found[1]:
        raise RheostatError(
            f"The policy judges with one of the tokens {' and '.join(map(repr, setup.task.verdicts))}, which its tokenizer does not write "
            "as one token each: give others (--environment verdicts), or name a judge (--judge, and compare_by judge)."
        )
    return found[0][0], found[1][0]


def judging_rows(task: Any, pairs: Sequence[tuple[Prompt, str, str]]) -> list[dict[str, Any]]:
    """Demonstrations of judging, for supervised fine-tuning: every pair in both orders, with the verdict as the completion.

    Args:
        task: says how the question is put.
        pairs: prompt, better and worse answer of each.

    Returns:
        Rows with the columns ``prompt`` and ``completion``, two of each pair.
    """
    found = []
    for prompt, better, worse in pairs:
        for order, verdict in (((better, worse), 0), ((worse, better), 1)):
            found.append({"prompt": task.comparison(prompt, *order).content, "completion": task.verdicts[verdict]})
    return found
