"""The searched window: what ``limit=searched`` means for GRPO and its relatives (BAPO's answer to HOW DOES THE POLICY MOVE).

In every gradient step the bounds of the clip are searched for from the learner's present log-probabilities of all its rows
(:mod:`rheostat.objectives.searched_bounds`), and the ratio is to whoever sampled. To the learner at the start of the update it would be 1
in the first step, and the search would do nothing. Where nobody knows who sampled (experts), that learner is the denominator after all.

With micro-batches the window costs one more forward pass per gradient step, so that all of them see the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import select
from rheostat.objectives.entropy_clip import entropy_drift
from rheostat.objectives.limits import Clip
from rheostat.objectives.policy_gradient import PolicyLoss
from rheostat.objectives.ratio import LOG_CLAMP
from rheostat.objectives.searched_bounds import Range, SearchedBounds, search_bounds
from rheostat.policies.language.model import TokenScores
from rheostat.trajectories import Trajectories

if TYPE_CHECKING:
    from rheostat.methods.language.grpo import GRPOConfig

METER = {"low": "clip_low", "high": "clip_high", "share": "positive_share", "share_at_start": "positive_share_at_start"}


class SearchedWindow:
    """The window of the gradient step that is being made; nothing of it outlives the step, so there is nothing to save.

    Args:
        config: widths, steps and target of the search.
    """

    def __init__(self, config: GRPOConfig) -> None:
        self.config = config
        self.bounds: SearchedBounds | None = None

    def begin(self, step: Trajectories, size: int, score: Callable[[Trajectories], TokenScores], mask: Tensor) -> bool:
        """Forget the last step's window; with micro-batches, search for this one's now, so that all of them see the same.

        Args:
            step: the rows of the gradient step.
            size: rows per micro-batch.
            score: the learner's view of some rows.
            mask: ``[B, T]`` bool, the tokens that are limited.

        Returns:
            Whether that took a forward pass of its own.
        """
        self.bounds = None
        if size >= len(step):
            return False
        with torch.no_grad():
            self.search(torch.cat([score(part).logp for part in step.split(size)]), step, mask)
        return True

    def search(self, logp: Tensor, rows: Trajectories, mask: Tensor) -> SearchedBounds:
        """Find and keep the window of a gradient step.

        Args:
            logp: the learner's present log-probabilities ``[B, T]`` of all rows of the step.
            rows: those rows, with advantages.
            mask: ``[B, T]`` bool, the tokens that are limited.
        """
        config, behaviour = self.config, behaviour_logp(logp, rows)
        low, high = ranges(config)
        self.bounds = search_bounds(
            (select(logp.detach(), mask) - select(behaviour, mask)).clamp(*LOG_CLAMP).exp(),
            rows.advantage,
            low=low,
            high=high,
            target=config.target,
            form=config.search,
            mask=mask,
            sampler_logp=behaviour,
        )
        return self.bounds

    def limit(self, logp: Tensor, rows: Trajectories) -> Clip:
        """The clip of this step; these rows are the whole step where nothing has been searched for yet."""
        bounds = self.bounds or self.search(logp, rows, rows.mask)
        return Clip(1 - bounds.low, bounds.high - 1, dual=self.config.dual_clip)

    def meter(self, policy: PolicyLoss, scores: TokenScores, rows: Trajectories) -> dict[str, Tensor]:
        """What the search found, and where the kept and the cut gradients push the entropy (the Entropy-Clip Rule)."""
        assert self.bounds is not None and scores.entropy is not None
        kept, cut = entropy_drift(scores.logp, scores.entropy, rows.advantage, policy.ratio, policy.limited, rows.mask)
        found = {f"meter/{ours}": torch.tensor(getattr(self.bounds, name)) for name, ours in METER.items()}
        return found | {"meter/entropy_drift_kept": kept, "meter/entropy_drift_cut": cut}


def behaviour_logp(logp: Tensor, rows: Trajectories) -> Tensor:
    """Log-probs ``[B, T]`` under whoever sampled; where that is unknown, under the learner at the start of the update."""
    start = logp.detach() if rows.learner_logp is None else rows.learner_logp
    return torch.where(rows.sampler_logp.isnan(), start, rows.sampler_logp)


def ranges(config: GRPOConfig) -> tuple[Range, Range]:
    """Bounds of the ratio from widths: the lower and the upper one."""
    assert config.clip_low is not None and config.clip_high is not None
    return (
        Range(1 - config.clip_low, 1 - config.clip_low_end, config.clip_low_step),
        Range(1 + config.clip_high, 1 + config.clip_high_end, config.clip_high_step),
    )


def check_search(config: GRPOConfig, who: str) -> dict[str, str]:
    """The window in words, by bound.

    Args:
        config: with ``limit`` at ``searched``.
        who: searches, for the sentences.

    Raises:
        RheostatError: settings that the search has no meaning for, or that are no window.
    """
    for name, only in (("ratio", "token"), ("sampler_correction", "none")):
        value: Any = getattr(config, name)
        if value != only:
            why = "the ratio is to the sampler already" if name == "sampler_correction" else "it searches the bounds of token ratios"
            raise RheostatError(f"{who} cannot use {name} {value!r}: {why}. Leave it at {only!r}.")
    if config.clip_low is None or config.clip_high is None:
        raise RheostatError(f"{who} searches from a window: give clip_low and clip_high a width.")
    if not 0 <= config.clip_low_end <= config.clip_low <= 1:
        raise RheostatError(
            f"clip_low goes from {config.clip_low} to clip_low_end {config.clip_low_end}: the lower bound rises towards 1, so "
            "0 <= clip_low_end <= clip_low <= 1."
        )
    if not 0 <= config.clip_high <= config.clip_high_end:
        raise RheostatError(
            f"clip_high goes from {config.clip_high} to clip_high_end {config.clip_high_end}: the upper bound rises, so "
            "0 <= clip_high <= clip_high_end."
        )
    if min(config.clip_low_step, config.clip_high_step) < 0:
        raise RheostatError("clip_low_step and clip_high_step are sizes of steps: 0 (never move) or more.")
    if config.target < 0 or (config.search == "paper" and config.target > 1):
        raise RheostatError(
            f"target is {config.target}: a share between 0 and 1 with search 'paper', a quotient of at least 0 with 'released'."
        )
    low, high = ranges(config)
    return {name: f"{x.start:g} to {x.end:g} by {x.step:g}" for name, x in (("lower bound", low), ("upper bound", high))}
