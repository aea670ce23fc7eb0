"""Running statistics as a part: they are updated with fresh rows, between collecting and learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rheostat.collect.control.normalise import RewardScale, RunningStatistics
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.trajectories import Source


@dataclass(frozen=True)
class Normalisation:
    """Running normalisation of observations and rewards; rows keep raw numbers, which are normalised where they are read."""

    observations: bool = option(True, short="normalise_observations")
    """Running normalisation of observations, then clipped to +-10 (details 28, 29); images are divided by 255 instead."""
    rewards: bool = option(True, short="normalise_rewards")
    """Divide rewards by the running deviation of the discounted return, then clip to +-10 (details 30, 31)."""
    gamma: float = 0.99
    keeps_units: ClassVar[bool] = True

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that have no effect in a run, and why."""
        return {"observations": "images are divided by 255 in any case, so leave it alone"} if context.images else {}

    def prepare(self, context: Any) -> None:
        """Make the statistics."""
        if self.observations and not context.images:
            context.stores["observations"] = RunningStatistics(context.observation_space.shape)
        if self.rewards:
            context.stores["rewards"] = RewardScale(context.environments.num_envs, self.gamma)
            context.on_restart.append(context.stores["rewards"].restart)

    def retain(self, context: Any, batch: Batch) -> Batch:
        """Update with the fresh rows; returns whether the policy that sampled them is older than the present one."""
        fresh = batch.rows
        if "observations" in context.stores:
            context.stores["observations"].update(fresh.observation, fresh.mask)
        if "rewards" in context.stores:
            context.stores["rewards"].update(fresh.reward, fresh.terminated | fresh.truncated, fresh.mask)
        fresh.source = torch.where(fresh.version < context.updates, int(Source.STALE), int(Source.FRESH))
        return batch
