"""What is subtracted from scores before they weigh a likelihood, and the running normalisation of rewards (arXiv 2404.14367).

A baseline does not bias the gradient of REINFORCE, but it says which samples have a negative weight: it is a part of the question whether
anything is pushed down.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rheostat.errors import RheostatError

Baseline = Literal["none", "batch-mean", "prompt-mean", "leave-one-out", "moving-average", "running-mean"]


class RunningRewards:
    """Mean and deviation of every reward of a run, in the order in which they were seen.

    A reward is normalised by the statistics of all rewards up to and including itself (population variance), so that the result depends on
    their order, and the first one of a run is worth 0.

    Args:
        eps: added to the deviation.
    """

    def __init__(self, eps: float = 1e-12) -> None:
        self.eps, self.count, self.total, self.squares = eps, 0, 0.0, 0.0

    def normalise(self, reward: Tensor) -> Tensor:
        """Normalised rewards in the shape of ``reward``, which are remembered (in the order of ``reward.flatten()``)."""
        flat = reward.detach().flatten().double()
        number = self.count + torch.arange(1, len(flat) + 1, dtype=torch.float64)
        total, squares = self.total + flat.cumsum(0), self.squares + flat.square().cumsum(0)
        mean = total / number
        deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
        self.count, self.total, self.squares = self.count + len(flat), float(total[-1]), float(squares[-1])
        return ((flat - mean) / (deviation + self.eps)).to(reward.dtype).view_as(reward)

    def state_dict(self) -> dict[str, Any]:
        """The sums."""
        return {"count": self.count, "total": self.total, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.count, self.total, self.squares = state["count"], state["total"], state["squares"]


class ScoreBaseline:
    """Scores ``[S, N]`` without a baseline.

    batch-mean      the mean of the batch
    prompt-mean     the mean of the prompt's samples
    leave-one-out   the mean of the prompt's other samples
    moving-average  ``b <- 0.9 b + 0.1 (batch mean)``, from the first batch's mean on
    running-mean    the mean of all scores of the run so far, those of this batch included

    Args:
        kind: one of these, or none.
        decay: of the moving average.

    Raises:
        RheostatError: an unknown kind.
    """

    def __init__(self, kind: Baseline, decay: float = 0.9) -> None:
        if kind not in get_args(Baseline):
            raise RheostatError(f"Unknown baseline {kind!r}: one of {', '.join(get_args(Baseline))}.")
        self.kind, self.decay = kind, decay
        self.average: float | None = None
        self.count, self.total = 0, 0.0

    def __call__(self, score: Tensor) -> Tensor:
        """``[S, N]``.

        Raises:
            RheostatError: a single sample per prompt, where each is compared with the others.
        """
        if self.kind == "none":
            return score
        if self.kind == "batch-mean":
            return score - score.mean()
        if self.kind == "prompt-mean":
            return score - score.mean(-1, keepdim=True)
        if self.kind == "leave-one-out":
            others = score.shape[-1] - 1
            if others < 1:
                raise RheostatError("leave-one-out compares a sample with the prompt's others, and there are none: draw at least 2.")
            return score - (score.sum(-1, keepdim=True) - score) / others
        if self.kind == "moving-average":
            now = float(score.mean())
            self.average = now if self.average is None else self.decay * self.average + (1 - self.decay) * now
            return score - self.average
        self.count, self.total = self.count + score.numel(), self.total + float(score.sum())
        return score - self.total / self.count

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {"average": self.average, "count": self.count, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.average, self.count, self.total = state["average"], state["count"], state["total"]
