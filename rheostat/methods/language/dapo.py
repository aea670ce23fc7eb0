"""DAPO: decoupled clip and dynamic sampling policy optimisation.

Paper: Yu et al. 2025, arXiv 2503.14476.

Equations
    loss    = 1/(sum_i |y_i|) sum_i sum_t -min(ratio A, clip(ratio, 1 - 0.2, 1 + 0.28) A)          (clip-higher, token mean)
    keep    a group only if its rewards differ; sample until the batch is full                     (dynamic sampling)
    reward += min(-(|y| - (L_max - L_buffer)) / L_buffer, 0)                                       (soft overlong punishment)

What differs from grpo: the upper clip is wider, so that unlikely tokens can grow; tokens, not completions, weigh equally; groups that
teach nothing are replaced; long completions are discouraged softly; no KL. The overlong buffer is a quarter of the limit here unless
given (the paper: 4096 of 20480).
Checked against: verl 0.8.0.dev (``tests/vectors``: baselines-llm; the filter and the penalty are transcribed from its formulas).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, GRPOConfig


@dataclass(frozen=True)
class DAPOConfig(GRPOConfig):
    """The paper's four changes."""

    clip_high: float | None = 0.28
    """Clip-higher."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""
    kl_coefficient: float = 0.0
    """No KL."""
    dynamic_sampling: bool = True
    """Only groups that carry a signal."""
    overlong_buffer: int = 4096
    """Tokens before the limit over which the penalty grows."""


class DAPO(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = DAPOConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "overlong_buffer": 8}}
