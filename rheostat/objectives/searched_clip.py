"""BAPO's searched clip: in every gradient step the bounds of the window are searched for from the learner's present log-probabilities.

The denominator of the ratio is the sampler. With the learner at the start of the update it would be 1 in the first step, and the search
would have no effect. Where the sampler is unknown (experts), that learner is the denominator. The search sees all tokens of a gradient step
(:mod:`rheostat.objectives.searched_bounds`); with micro-batches that costs one more forward pass, so that all of them see the same window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import select
from rheostat.objectives.clipping import Clip
from rheostat.objectives.entropy_clip import entropy_drift
from rheostat.objectives.policy_gradient import PolicyLoss
from rheostat.objectives.ratio import LOG_CLAMP
from rheostat.objectives.searched_bounds import Form, Range, SearchedBounds, search_bounds
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.trajectories import Trajectories

METER = {"low": "clip_low", "high": "clip_high", "share": "positive_share", "share_at_start": "positive_share_at_start"}


@dataclass(frozen=True)
class SearchedClip:
    """The start, the steps and the end of the search."""

    kind: ClassVar[str] = "searched"
    low: float = option(0.2, short="clip_low", at_least=0, at_most=1)
    """Lower width of the window where the search starts."""
    high: float = option(0.2, short="clip_high", at_least=0)
    """Upper width of the window where the search starts."""
    search: Form = option("paper")
    """Measure and order of the search: the paper's, or the released code's."""
    target: float = option(0.4, at_least=0)
    """Where the search stops: positive share of the surrogate (paper), or quotient of positive and negative (released)."""
    low_end: float = option(0.1, short="clip_low_end", at_least=0, at_most=1)
    """Lower width at the end of the search."""
    low_step: float = option(0.02, short="clip_low_step", at_least=0)
    """Step of the lower bound; 0 never moves it."""
    high_end: float = option(2.0, short="clip_high_end", at_least=0)
    """Upper width at the end of the search."""
    high_step: float = option(0.05, short="clip_high_step", at_least=0)
    """Step of the upper bound; 0 never moves it."""
    dual: float | None = option(None, short="dual_clip", at_least=1)
    """Where A < 0, a ratio above this gives no gradient (3 in the released code)."""

    def __post_init__(self) -> None:
        if self.low_end > self.low:
            raise RheostatError(
                f"clip_low goes from {self.low} to clip_low_end {self.low_end}: the lower bound rises towards 1, so clip_low_end is at "
                "most clip_low."
            )
        if self.high > self.high_end:
            raise RheostatError(
                f"clip_high goes from {self.high} to clip_high_end {self.high_end}: the upper bound rises, so clip_high_end is at least "
                "clip_high."
            )
        if self.search == "paper" and self.target > 1:
            raise RheostatError(f"target is {self.target}: with search 'paper' it is a share between 0 and 1.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that have no effect, and why."""
        still = {"low_end": self.low_step, "high_end": self.high_step, "target": self.low_step or self.high_step}
        return {name: "its step is 0, so the bound stays where it starts; leave it alone" for name, step in still.items() if not step}

    @property
    def ranges(self) -> tuple[Range, Range]:
        """Bounds of the ratio from widths: the lower and the upper one."""
        return Range(1 - self.low, 1 - self.low_end, self.low_step), Range(1 + self.high, 1 + self.high_end, self.high_step)

    def describe(self) -> dict[str, str]:
        """The window in words, by bound."""
        return {
            name: f"{x.start:g} to {x.end:g} by {x.step:g}" for name, x in zip(("lower bound", "upper bound"), self.ranges, strict=True)
        }

    def find(self, logp: Tensor, rows: Trajectories, mask: Tensor) -> SearchedBounds:
        """The bounds for a gradient step.

        Args:
            logp: the learner's present log-probabilities ``[B, T]`` of all rows of the step.
            rows: those rows, with advantages.
            mask: ``[B, T]`` bool, the tokens that are clipped.
        """
        behaviour = behaviour_logp(logp, rows)
        low, high = self.ranges
        return search_bounds(
            (select(logp.detach(), mask) - select(behaviour, mask)).clamp(*LOG_CLAMP).exp(),
            rows.advantage,
            low=low,
            high=high,
            target=self.target,
            form=self.search,
            mask=mask,
            sampler_logp=behaviour,
        )

    def begin(self, context: Any, logp: Tensor, batch: Batch, mask: Tensor) -> Batch:
        """The batch of a whole gradient step with its bounds, a fact that its micro-batches share."""
        return replace(batch, facts=batch.facts | {"bounds": self.find(logp, batch.rows, mask)})

    def rule(self, batch: Batch) -> Clip:
        """PPO's clip with the bounds of the step."""
        return self.clip(batch.facts["bounds"])

    def clip(self, bounds: SearchedBounds) -> Clip:
        """PPO's clip with these bounds."""
        return Clip(1 - bounds.low, bounds.high - 1, dual=self.dual)


def behaviour_logp(logp: Tensor, rows: Trajectories) -> Tensor:
    """Log-probs ``[B, T]`` under the sampler; where that is unknown, under the learner at the start of the update."""
    start = logp.detach() if rows.learner_logp is None else rows.learner_logp
    return torch.where(rows.sampler_logp.isnan(), start, rows.sampler_logp)


def search_metrics(
    bounds: SearchedBounds, policy: PolicyLoss, logp: Tensor, entropy: Tensor, rows: Trajectories, mask: Tensor
) -> dict[str, Tensor]:
    """Metrics of the search, and the drift of the entropy by the kept and by the cut gradients (the Entropy-Clip Rule).

    Args:
        bounds: the result of the search.
        policy: the loss with these bounds.
        logp, entropy: ``[B, T]``, of the learner, in nats.
        rows: ``[B, T]``, with advantages.
        mask: bool ``[B, T]``.

    Returns:
        Scalars by their names in the log.
    """
    kept, cut = entropy_drift(logp, entropy, rows.advantage, policy.ratio, policy.clipped, mask)
    found = {f"meter/{ours}": torch.tensor(getattr(bounds, name)) for name, ours in METER.items()}
    return found | {"meter/entropy_drift_kept": kept, "meter/entropy_drift_cut": cut}
