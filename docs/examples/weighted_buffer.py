"""PPO-Buffer with weights: old rows count by how likely they still are.

Source: truncated importance sampling (Ionides 2008), on the advantages of ppo-buffer.

Equation
    A_i <- A_i min(pi_start(a_i|s_i) / pi_sampler(a_i|s_i), C)

WORTH      GAE, times the truncated importance weight between the policy when this update began and the one
           that really sampled the row. Fresh rows keep the weight 1.

What differs from ppo-buffer: a row that the present policy would hardly sample any more counts for little; C
bounds the variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rheostat.errors import RheostatError
from rheostat.methods.control.ppo import PPOConfig
from rheostat.methods.control.ppo_buffer import PPOBuffer, PPOBufferConfig
from rheostat.objectives.weights import importance_weight
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class WeightedBufferConfig(PPOBufferConfig):
    """PPO-Buffer and one setting more."""

    weight_cap: float = 2.0
    """C: largest weight of a row."""


class WeightedBuffer(PPOBuffer):
    """See the module docstring."""

    Config: ClassVar[type[PPOConfig]] = WeightedBufferConfig
    config: WeightedBufferConfig

    @classmethod
    def derived(cls, config: PPOConfig) -> dict[str, int | str]:
        """PPO's numbers; refuses a cap that would switch every row off."""
        assert isinstance(config, WeightedBufferConfig)
        if config.weight_cap <= 0:
            raise RheostatError(f"weight_cap is {config.weight_cap}: it must be above 0.")
        return super().derived(config)

    def credit(self, kept: Trajectories) -> Trajectories:
        """WHAT IS IT WORTH? As before, weighted."""
        batch = super().credit(kept)
        if self.credit_due:
            start, sampler = batch.learner_logp, batch.sampler_logp
            weight = importance_weight(start, sampler, mask=batch.mask, cap=self.config.weight_cap)
            batch.advantage = batch.advantage * weight
        return batch
