"""A judge of pairs: a reward function that is given the other answer in the column ``other`` and says how likely its own is the better one.

The order in which a judge sees two answers must not matter, but it does: whoever asks one asks in both orders
(:func:`~rheostat.credit.preference_measures.both_orders`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rheostat.credit.verifiers.verifier_interface import Verifier, require_valid
from rheostat.errors import RheostatError
from rheostat.tasks.language.task_interface import Prompt

OTHER = "other"
"""The column that holds the answer with which a completion is compared."""


class PairJudge:
    """Asks a reward function about pairs of answers.

    Args:
        verifier: grades completions beside the answer in their column ``other``, with probabilities.
    """

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier

    def __call__(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Probabilities ``[N]`` that the first answer is the better one; NaN where the judge says nothing.

        Raises:
            RheostatError: numbers that are no probabilities, or a judge that fails on more than a tenth of the pairs.
        """
        rows = [
            replace(prompt, columns={**prompt.columns, OTHER: other}).rollout(text)
            for prompt, text, other in zip(prompts, first, second, strict=True)
        ]
        scores = self.verifier.score(rows)
        require_valid(scores, grader=f"The judge {self.verifier.name!r}")
        wrong = scores.reward[scores.valid & ((scores.reward < 0) | (scores.reward > 1))]
        if len(wrong):
            raise RheostatError(
                f"The judge {self.verifier.name!r} returned {wrong[0].item():g}: it must say, between 0 and 1, how likely the completion "
                "is a better answer than the one in the column 'other'."
            )
        return torch.where(scores.valid, scores.reward, math.nan)

    def close(self) -> None:
        """Release a judge that runs in a process of its own."""
        if hasattr(self.verifier, "close"):
            self.verifier.close()
