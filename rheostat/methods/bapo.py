"""BAPO: balanced policy optimisation with adaptive clipping.

Paper: Xi et al. 2025, arXiv 2510.18927; code: WooooDyy/BAPO, a recipe for verl.

Equations (r = pi / pi_behaviour per token, A the group advantage)
    loss  = token mean of -min(r A, clip(r, c_low, c_high) A)
    share = sum_{A>0} w min(r, c_high) A / ( the same + sum_{A<0} w max(r, c_low) |A| ),      w = pi_behaviour(y_t)
    start at c_low = 0.6, c_high = 1.2;  while share < 0.4:  c_high += 0.05 up to 3.0, then c_low += 0.02 up to 0.9

WHO ACTS   any earlier version of the policy; in the published runs the one at the start of a batch that is used for eight gradient steps.
KEPT       the last batch, for ``epochs`` x ``minibatches`` gradient steps (stale, replayed or expert data: see the dial).
WORTH      a verifier's reward, relative to the group.
MOVES      PPO's clip with two bounds that are searched for in every gradient step.

What differs from grpo: the ratio is to the *behaviour* policy (``sampler_logp``), never to the learner at the start of the update, with
which r would be 1 in the first step and the search would do nothing; the window is searched for; tokens weigh equally; no KL. Where
nobody knows who sampled (experts), the denominator is the learner at the start of the update, as in grpo.

Paper and released code differ (``--search released``): the code measures the quotient positive / negative without w, moves the *lower*
bound first, and adds a dual clip of 3. Its configuration (target 1.0, bounds to 0.8 and 2.0 by 0.05) is the preset ``released``, that of
its example script (target 0.5, which is a share of 1/3; the README calls it a share of 0.5) the preset ``released-script``. verl searches
per micro-batch, so bounds change inside a gradient step; here the search sees all tokens of a gradient step, and micro-batches change
nothing (they cost one more forward pass per step).

Raising c_low can only increase the negative side, so it never helps to reach the target, in either form; what it does is to take the
gradient away from negative tokens that have already become unlikely. On the meter stand the positive share before and after the search
and the Entropy-Clip Rule: which way the kept and the cut gradients push the entropy.

Reconstruction: the paper's form, its numbers and its hyperparameters are from public notes, not from the paper's text; the notes' sampling
temperature of 0.6 is not taken over (1.0, as in the script).
Checked against: the authors' code (released form) and the equations (``tests/vectors``: bapo).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.collect.prompts import World
from rheostat.errors import RheostatError
from rheostat.masking import Aggregation, select
from rheostat.methods.grpo import GRPO, GRPOConfig
from rheostat.objectives.entropy_clip import entropy_drift
from rheostat.objectives.limits import Clip
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP
from rheostat.objectives.searched_bounds import Form, Range, SearchedBounds, search_bounds
from rheostat.policies.flops import FORWARD
from rheostat.policies.language import TokenScores
from rheostat.streams import Streams
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class BAPOConfig(GRPOConfig):
    """The paper's search."""

    search: Form = "paper"
    """Measure and order of the search: the paper's, or the released code's."""
    target: float = 0.4
    """Where the search stops: positive share of the surrogate (paper), or quotient of positive and negative (released)."""
    clip_low: float | None = 0.4
    """Lower width at the start of the search: c_low = 0.6."""
    clip_low_end: float = 0.1
    """Lower width at its end: c_low = 0.9."""
    clip_low_step: float = 0.02
    """Step of the lower bound; 0 never moves it."""
    clip_high: float | None = 0.2
    """Upper width at the start of the search: c_high = 1.2."""
    clip_high_end: float = 2.0
    """Upper width at its end: c_high = 3.0."""
    clip_high_step: float = 0.05
    """Step of the upper bound; 0 never moves it."""
    epochs: int = 2
    """Passes over a batch: with the minibatches, data up to eight gradient steps old."""
    minibatches: int = 4
    """Gradient steps per pass."""
    learning_rate: float = 2e-6
    """AdamW step size."""
    weight_decay: float = 0.1
    """AdamW weight decay."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""
    kl_coefficient: float = 0.0
    """No KL."""


RELEASED: dict[str, Any] = {"search": "released", "learning_rate": 1e-6, "dual_clip": 3.0, "clip_high_end": 1.0}


class BAPO(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = BAPOConfig
    config: BAPOConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 2e-4, "weight_decay": 0.0},
        "released": RELEASED | {"target": 1.0, "clip_low": 0.4, "clip_low_end": 0.2, "clip_low_step": 0.05, "clip_high_step": 0.05},
        "released-script": RELEASED
        | {"target": 0.5, "clip_low": 0.2, "clip_low_end": 0.05, "clip_low_step": 0.05, "clip_high_step": 0.1, "top_k": 100},
    }

    def __init__(self, config: BAPOConfig, world: World, streams: Streams, *, total_steps: int) -> None:
        super().__init__(config, world, streams, total_steps=total_steps)
        self.bounds: SearchedBounds | None = None  # of the gradient step that is being made: nothing to save
        self.drift: dict[str, Tensor] = {}

    @classmethod
    def derived(cls, config: GRPOConfig) -> dict[str, int | str]:
        """GRPO's numbers and the window; refuses what the search has no meaning for.

        Raises:
            RheostatError: an impossible combination, and what to change.
        """
        assert isinstance(config, BAPOConfig)
        for name, only in (("limit", "clip"), ("ratio", "token"), ("sampler_correction", "none")):
            value = getattr(config, name)
            if value != only:
                why = "the ratio is to the sampler already" if name == "sampler_correction" else "it searches the bounds of token ratios"
                raise RheostatError(f"bapo cannot use {name} {value!r}: {why}. Leave it at {only!r}.")
        if config.clip_low is None or config.clip_high is None:
            raise RheostatError("bapo searches from a window: give clip_low and clip_high a width.")
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
        windows = {"lower bound": low, "upper bound": high}
        return super().derived(config) | {name: f"{x.start:g} to {x.end:g} by {x.step:g}" for name, x in windows.items()}

    def behaviour_logp(self, logp: Tensor, rows: Trajectories) -> Tensor:
        """Log-probs ``[B, T]`` under whoever sampled; where that is unknown, under the learner at the start of the update."""
        start = logp.detach() if rows.learner_logp is None else rows.learner_logp
        return torch.where(rows.sampler_logp.isnan(), start, rows.sampler_logp)

    def search(self, logp: Tensor, rows: Trajectories) -> SearchedBounds:
        """The window of a gradient step, from the learner's present log-probs of all its rows."""
        config = self.config
        behaviour = self.behaviour_logp(logp, rows)
        low, high = ranges(config)
        return search_bounds(
            (select(logp.detach(), rows.mask) - select(behaviour, rows.mask)).clamp(*LOG_CLAMP).exp(),
            rows.advantage,
            low=low,
            high=high,
            target=config.target,
            form=config.search,
            mask=rows.mask,
            sampler_logp=behaviour,
        )

    def gradient_step(self, batch: Trajectories, rows: Tensor, before: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """One optimiser step; in micro-batches, the window is searched for in a pass of its own over all of the step's rows."""
        self.bounds = None
        if 0 < self.config.micro_batch_rows < len(rows):
            step = batch[rows]
            self.spend(FORWARD, step)
            with torch.no_grad():
                self.bounds = self.search(self.score(step).logp, step)
        return super().gradient_step(batch, rows, before)

    def surrogate(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> PolicyLoss:
        """The clipped surrogate in the window of this gradient step, against the behaviour policy."""
        config = self.config
        if self.bounds is None:  # these rows are the whole step
            self.bounds = self.search(scores.logp, rows)
        policy = policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=self.behaviour_logp(scores.logp, rows),
            mask=rows.mask,
            limit=Clip(1 - self.bounds.low, self.bounds.high - 1, dual=config.dual_clip),
            log_clamp=LOG_CLAMP if config.clamp_log_ratio else None,
            aggregate=config.aggregation,
            denominator=denominator,
        )
        assert scores.entropy is not None
        kept, cut = entropy_drift(scores.logp, scores.entropy, rows.advantage, policy.ratio, policy.limited, rows.mask)
        self.drift = {"meter/entropy_drift_kept": kept, "meter/entropy_drift_cut": cut}
        return policy

    def losses(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """GRPO's loss and parts, with what the search found."""
        loss, parts = super().losses(scores, rows, denominator)
        assert self.bounds is not None
        names = {"low": "clip_low", "high": "clip_high", "share": "positive_share", "share_at_start": "positive_share_at_start"}
        found = {f"meter/{ours}": torch.tensor(getattr(self.bounds, name)) for name, ours in names.items()}
        return loss, parts | found | self.drift


def ranges(config: BAPOConfig) -> tuple[Range, Range]:
    """Bounds of the ratio from widths: the lower and the upper one."""
    assert config.clip_low is not None and config.clip_high is not None
    return (
        Range(1 - config.clip_low, 1 - config.clip_low_end, config.clip_low_step),
        Range(1 + config.clip_high, 1 + config.clip_high_end, config.clip_high_step),
    )
