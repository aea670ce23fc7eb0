"""CISPO: clipped importance-sampling weights instead of clipped updates.

Paper: MiniMax 2025, MiniMax-M1, arXiv 2506.13585.

Equation
    loss = 1/(sum_i |y_i|) sum_i sum_t - sg[ min(ratio_it, 1 + eps_high) ] A_i log pi(y_it)

What differs from grpo: no token ever loses its gradient; a large ratio is only weighted down. There is no lower bound (``clip_low``
None), tokens weigh equally, and there is no KL. TRL's epsilon_high is the cap itself, not 1 + epsilon_high.
Checked against: verl 0.8.0.dev and TRL 1.16.0 (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, GRPOConfig, LimitName


@dataclass(frozen=True)
class CISPOConfig(GRPOConfig):
    """The upper bound is tuned in the paper; 0.28 is Trinity's."""

    limit: LimitName = "detached"
    """A clipped, constant weight on the log-likelihood."""
    clip_low: float | None = None
    """No lower bound."""
    clip_high: float | None = 0.28
    """Upper width."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""
    minibatches: int = 4
    """Several gradient steps per batch, without which a ratio does nothing."""
    kl_coefficient: float = 0.0
    """No KL."""


class CISPO(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = CISPOConfig
    search_refused: ClassVar[str] = "its bounds cap a constant weight and cut no gradient"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}
