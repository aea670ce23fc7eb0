"""REINFORCE: the policy gradient and nothing else.

Paper: Williams 1992.

Equation
    loss = mean over completions of sum_t -(R_i - mean_g R) log pi(y_it)

What differs from grpo: no ratio, no clip, no deviation, no KL; one gradient step per batch, because a second would be off-policy without
a correction. The baseline is the group's mean (``advantage=reward`` leaves it out).
Checked against: verl 0.8.0.dev's ``gpg`` loss (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rheostat.errors import RheostatError
from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig, LimitName


@dataclass(frozen=True)
class ReinforceConfig(GRPOConfig):
    """One step, no limit."""

    advantage: Advantage = "mean-baseline"
    """Reward minus the group's mean."""
    limit: LimitName = "detached"
    """The log-likelihood itself."""
    clip_low: float | None = None
    """No bound."""
    clip_high: float | None = None
    """No bound."""
    aggregation: Aggregation = "sequence-sum"
    """The log-probability of the whole completion."""
    kl_coefficient: float = 0.0
    """No KL."""


class Reinforce(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = ReinforceConfig
    search_refused: ClassVar[str] = "it takes one step on fresh data and limits nothing"

    @classmethod
    def derived(cls, config: GRPOConfig) -> dict[str, int | str]:
        """GRPO's numbers; refuses a second gradient step on the same data."""
        if config.epochs * config.minibatches > 1:
            raise RheostatError("REINFORCE takes one gradient step per batch: use epochs 1 and minibatches 1, or grpo for several.")
        return super().derived(config)
