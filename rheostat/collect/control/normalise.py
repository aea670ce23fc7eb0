"""Running statistics for observations and rewards (PPO details 28 to 31).

Trajectories keep raw numbers; normalising happens where they are read. Statistics change only when ``update`` is called, so evaluation with
a trained policy never moves them, and they are saved with the policy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError


class RunningStatistics:
    """Mean and (population) variance of all samples so far, in float64.

    Batches are merged by the parallel formula of Chan, Golub and LeVeque (1979), so the result does not depend on how the data are split.

    Args:
        shape: shape of one sample.
        eps: added to the variance before the root.

    Attributes:
        mean, variance: float64 of ``shape``; 0 and 1 before the first update.
        count: number of samples seen.
    """

    def __init__(self, shape: tuple[int, ...] = (), eps: float = 1e-8) -> None:
        self.shape = tuple(shape)
        self.eps = eps
        self.mean = torch.zeros(self.shape, dtype=torch.float64)
        self.variance = torch.ones(self.shape, dtype=torch.float64)
        self.count = 0

    def update(self, batch: Tensor, mask: Tensor | None = None) -> None:
        """Update the statistics with samples.

        Args:
            batch: ``[..., *shape]``, any float dtype.
            mask: bool of the leading axes; samples where it is False are left out, whatever they hold (NaN included).

        Raises:
            RheostatError: another shape, images (uint8), or a kept sample that is not finite (it would spoil the statistics for good).
        """
        self._check(batch)
        lead = batch.shape[: batch.ndim - len(self.shape)]
        if mask is not None and mask.shape != lead:
            raise RheostatError(f"The mask has shape {list(mask.shape)}; the samples have the leading axes {list(lead)}.")
        samples = batch.detach().reshape(-1, *self.shape) if mask is None else batch.detach()[mask]
        if len(samples) == 0:
            return
        samples = samples.to("cpu", torch.float64)
        mean, variance = samples.mean(0), samples.var(0, unbiased=False)
        if not (torch.isfinite(mean).all() and torch.isfinite(variance).all()):
            raise RheostatError("A sample for the running statistics is not finite: mask it, or correct the environment it comes from.")
        self._merge(mean, variance, len(samples))

    def merge(self, other: RunningStatistics) -> None:
        """Merge the statistics of another one."""
        if other.shape != self.shape:
            raise RheostatError(f"Statistics of shapes {list(self.shape)} and {list(other.shape)} cannot be merged.")
        if other.count:
            self._merge(other.mean, other.variance, other.count)

    def _merge(self, mean: Tensor, variance: Tensor, count: int) -> None:
        total = self.count + count
        delta = mean - self.mean
        # The placeholder variance 1 before the first update has weight 0.
        self.variance = (self.variance * self.count + variance * count + delta.square() * (self.count * count / total)) / total
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def normalise(self, x: Tensor, clip: float | None = 10.0) -> Tensor:
        """``(x - mean) / std`` limited to ``[-clip, clip]``, float32 on the device of ``x``.

        Computed in float64: a coordinate that is large but hardly varies would lose its digits in float32.
        """
        self._check(x)
        scaled = (x.double() - self.mean.to(x.device)) / (self.variance + self.eps).sqrt().to(x.device)
        return (scaled if clip is None else scaled.clamp(-clip, clip)).float()

    def _check(self, x: Tensor) -> None:
        if x.dtype == torch.uint8:
            raise RheostatError("Images (uint8) are not normalised by running statistics; networks divide them by 255.")
        if x.shape[x.ndim - len(self.shape) :] != self.shape:
            raise RheostatError(f"Samples have shape {list(x.shape)}; the statistics are for [..., {', '.join(map(str, self.shape))}].")

    def state_dict(self) -> dict[str, Any]:
        """Mean, variance and count."""
        return {"mean": self.mean.clone(), "variance": self.variance.clone(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved statistics of the same shape."""
        if tuple(state["mean"].shape) != self.shape:
            raise RheostatError(f"Saved statistics have shape {list(state['mean'].shape)}, these have {list(self.shape)}.")
        self.mean, self.variance, self.count = state["mean"].clone(), state["variance"].clone(), int(state["count"])


class RewardScale:
    """Divides rewards by the running standard deviation of the discounted return, without moving their mean.

    Every environment keeps ``G <- gamma G + r``; all values of G enter one variance; G returns to 0 when an episode ends. This is the rule
    of OpenAI baselines and Stable-Baselines3 (Gymnasium's NormalizeReward lets G run on over truncations).

    Args:
        num_envs: number of environments (rows) B.
        gamma: the discount.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.gamma = gamma
        self.statistics = RunningStatistics()
        self._return = np.zeros(num_envs)

    def update(self, reward: Tensor, done: Tensor, mask: Tensor | None = None) -> None:
        """Update with the next block of steps.

        Args:
            reward: raw, ``[B, T]``, continuing in time where the last block stopped.
            done: bool ``[B, T]``, the episode ended with this step (terminated or truncated).
            mask: bool ``[B, T]``, False on rows that are no transitions; these change nothing, whatever they hold.

        Raises:
            RheostatError: wrong shapes, or a kept reward that is not finite.
        """
        if (
            reward.ndim != 2
            or len(reward) != len(self._return)
            or done.shape != reward.shape
            or (mask is not None and mask.shape != reward.shape)
        ):
            shapes = f"reward {list(reward.shape)}, done {list(done.shape)}" + ("" if mask is None else f", mask {list(mask.shape)}")
            raise RheostatError(f"RewardScale for {len(self._return)} environments needs [{len(self._return)}, T] tensors, not {shapes}.")
        kept = np.ones(reward.shape, dtype=bool) if mask is None else mask.cpu().numpy()
        rewards = np.where(kept, reward.detach().cpu().numpy(), 0.0).astype(np.float64).T
        factor = np.where(kept, self.gamma, 1.0).T
        alive = np.where(kept & done.cpu().numpy(), 0.0, 1.0).T
        returns = np.empty(rewards.shape)
        running = self._return
        for t in range(len(rewards)):
            returns[t] = factor[t] * running + rewards[t]
            running = returns[t] * alive[t]
        self.statistics.update(torch.from_numpy(returns), torch.from_numpy(kept.T))
        self._return = running

    def restart(self) -> None:
        """Reset the running returns, because the environments were reset."""
        self._return = np.zeros_like(self._return)

    def scale(self, reward: Tensor, clip: float | None = 10.0) -> Tensor:
        """``reward / std`` limited to ``[-clip, clip]``, float32 on the device of ``reward``."""
        scaled = reward.double() / math.sqrt(float(self.statistics.variance) + self.statistics.eps)
        return (scaled if clip is None else scaled.clamp(-clip, clip)).float()

    def state_dict(self) -> dict[str, Any]:
        """Statistics and the running returns ``[B]``."""
        return {"statistics": self.statistics.state_dict(), "return": torch.from_numpy(self._return.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state with the same number of environments."""
        if len(state["return"]) != len(self._return):
            raise RheostatError(f"Saved reward statistics are for {len(state['return'])} environments, these for {len(self._return)}.")
        self.statistics.load_state_dict(state["statistics"])
        self._return = state["return"].numpy().copy()
