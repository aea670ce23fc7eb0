"""PPO-Buffer: PPO that also learns from the last batches, as if they were on-policy. The baseline PROPS is compared with.

Source: Corrado & Hanna 2023, arXiv 2311.08290 (there "PPO-Buffer"): the data reuse of PROPS without its adaptive sampling.

What differs from ppo: ``window`` is 2, so every update learns from the fresh batch and the one before it. There is no importance correction
towards the policy that sampled the old rows: ratios are against the policy at the start of the update, and the meter shows the price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rheostat.methods.control.ppo import PPO, PPOConfig


@dataclass(frozen=True)
class PPOBufferConfig(PPOConfig):
    """PPO with a window of two batches."""

    window: int = 2
    """Batches kept and learned from (b)."""


class PPOBuffer(PPO):
    """See the module docstring."""

    Config: ClassVar[type[PPOConfig]] = PPOBufferConfig
