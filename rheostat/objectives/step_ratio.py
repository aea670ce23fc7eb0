"""The surrogate of an agent's steps: one ratio for all tokens of a turn (Liu et al. 2025, arXiv 2509.19199, equation 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rheostat.credit.turns import on_tokens, per_step, steps_of, taken
from rheostat.objectives.clipping import Clip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP
from rheostat.objectives.terms import TokenTerm, old_logp
from rheostat.parts import Batch, Context, Report


@dataclass(frozen=True)
class StepPolicyGradient(TokenTerm):
    """PPO's clip on the ratio of a step, the product over its tokens; a mean over all steps.

    rho_t = prod over the tokens of step t of pi / pi_old
    loss  = - mean over steps of min(rho_t A_t, clip(rho_t) A_t)

    The advantage of a step is the mean over its tokens, which share one. The logarithm of a ratio is clamped to +-20.
    """

    clip: Clip = Clip(0.2, 0.2)
    reads: ClassVar[Sequence[str]] = ("advantage",)

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Steps of the gradient step."""
        return taken(steps_of(batch)).sum().clamp(min=1)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        step = steps_of(batch)
        there, length = taken(step), per_step(step.gt(0).float(), step).clamp(min=1)
        found = policy_gradient(
            per_step(scores.logp, step),
            per_step(batch.rows.advantage, step) / length,
            denominator_logp=per_step(old_logp(scores, batch.rows), step),
            mask=there,
            clip=self.clip,
            log_clamp=LOG_CLAMP,
            denominator=denominator,
        )
        clipped = on_tokens(found.clipped.float(), step) > 0
        return found.loss, Report(means={"approx_kl": found.approx_kl, "meter/clip_fraction": found.clip_fraction}, clipped=clipped)
