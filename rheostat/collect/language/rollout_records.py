"""A batch of completions as readable records: texts, grades and the numbers of every token."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from rheostat.collect.language.prompt_groups import Graded

NUMBERS = ("advantage", "sampler_logp", "learner_logp", "entropy")
"""Fields of the trajectories that are kept for every token."""


def rollout_rows(graded: Graded, tokenizer: Any, group_size: int, count: int, *, update: int) -> list[dict[str, Any]]:
    """Whole groups, at most ``count`` rows but at least one group, as plain JSON.

    Args:
        graded: the batch ``[B, T]``; fields of :data:`NUMBERS` that it does not have are left out.
        tokenizer: of the policy, for the text of single tokens.
        group_size: rows of a group.
        count: rows wanted.
        update: number of the policy update, noted in every row.

    Returns:
        Per row ``update``, ``group``, ``prompt``, ``answer``, ``completion``, ``reward``, ``parts`` of the reward, ``valid``, ``source``,
        ``truncated``, ``message``, ``tokens`` (texts), and lists of one number per token; unknown numbers are None.
    """
    if not graded.prompts:
        return []
    rows, scores = graded.trajectories, graded.scores
    group = rows.group[:, 0].tolist()
    wanted = list(dict.fromkeys(group))[: max(count // group_size, 1)]
    chosen = [i for number in wanted for i in range(len(group)) if group[i] == number]
    found = []
    for i in chosen[: max(count, group_size)]:
        kept = rows.mask[i].nonzero().flatten()
        answer = graded.prompts[i].answer
        parts = {name: part[i].item() for name, part in scores.parts.items()}
        numbers = {name: value for name in NUMBERS if (value := getattr(rows, name)) is not None}
        found.append(
            {
                "update": update,
                "group": group[i],
                "prompt": graded.prompts[i].content,
                "answer": answer if isinstance(answer, str | int | float) else None,
                "completion": graded.completions[i],
                "reward": rows.reward[i].sum().item(),
                "parts": {name: round(value, 5) for name, value in parts.items() if not math.isnan(value)},
                "valid": bool(rows.valid[i, 0]),
                "source": int(rows.source[i, 0]),
                "truncated": bool(rows.truncated[i].any()),
                "message": scores.messages.get(i, ""),
                "tokens": [tokenizer.decode([token]) for token in rows.action[i][kept].tolist()],
                **{name: _rounded(value[i][kept]) for name, value in numbers.items()},
            }
        )
    return found


def _rounded(values: Tensor) -> list[float | None]:
    """For storage; unknown (NaN) becomes None, which JSON has."""
    return [None if math.isnan(x) else round(x, 5) for x in values.tolist()]
