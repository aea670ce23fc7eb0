"""GSPO: group sequence policy optimisation.

Paper: Zheng et al. 2025, arXiv 2507.18071.

Equations
    s_i  = exp( 1/|y_i| sum_t (log pi(y_it) - log pi_old(y_it)) )                  (the geometric mean of the token ratios)
    loss = mean_i -min(s_i A_i, clip(s_i, 1 - 3e-4, 1 + 4e-4) A_i)

What differs from grpo: one ratio per completion, clipped in a very narrow window, so that about half of the completions are limited at
any realistic drift; that is intended. The ratio is spread over the tokens with each token's own gradient (verl's form); TRL's gradient
through the mean is the same for a row-constant advantage. No KL.
Checked against: verl 0.8.0.dev and TRL 1.16.0 (``tests/vectors``: baselines-llm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.methods.language.grpo import GRPO, GRPOConfig
from rheostat.objectives.ratio import RatioKind


@dataclass(frozen=True)
class GSPOConfig(GRPOConfig):
    """The paper's window; several gradient steps per batch, without which a ratio does nothing."""

    ratio: RatioKind = "sequence-token"
    """One ratio per completion."""
    clip_low: float | None = 3e-4
    """Lower width."""
    clip_high: float | None = 4e-4
    """Upper width."""
    minibatches: int = 4
    """The paper splits each batch into four gradient steps."""
    kl_coefficient: float = 0.0
    """No KL."""


class GSPO(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = GSPOConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}
