"""What a decision over a network is worth: the reward of its rollout against a running mean of earlier epochs (N2N, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.options import option
from rheostat.parts import Batch, row_reward


class RunningMean:
    """The mean of the rewards of earlier epochs, each of which counts once.

    Args:
        authors: divide the sum of ``e`` epochs by ``e + 1``, as the authors' code does: too small in early epochs.
    """

    def __init__(self, authors: bool = False) -> None:
        self.authors = authors
        self.total, self.epochs = 0.0, 0

    @property
    def value(self) -> float:
        """The baseline of the next epoch; 0 before the first."""
        return self.total / max(1, self.epochs + self.authors)

    def add(self, mean: float) -> None:
        """An epoch is over."""
        self.total, self.epochs = self.total + mean, self.epochs + 1

    def restart(self) -> None:
        """Forget all epochs."""
        self.total, self.epochs = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """Sum and number of epochs."""
        return {"total": self.total, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.total, self.epochs = state["total"], state["epochs"]


@dataclass(frozen=True)
class RunningBaseline:
    """Every decision of a rollout is worth the rollout's reward less a baseline; the first epoch, which has none before it, takes its own
    mean where the baseline is ours."""

    signal: Literal["rollout", "epoch"] = option("rollout", short="signal")
    """Whose reward a decision is credited with: its own rollout's, or (as in the authors' code) the mean of all rollouts of the epoch."""
    divisor: Literal["epochs", "epochs+1"] = option("epochs", short="baseline_divisor")
    """What the sum of earlier epochs' means is divided by: their number, or (as in the authors' code) one more."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return dict.fromkeys(("signal", "divisor"), "chance draws the networks, so nothing is learned") if method.by_chance else {}

    writes: ClassVar[tuple[str, ...]] = ("advantage",)

    def bind(self, context: Any) -> None:
        """Make the running mean, which the stages share."""
        context.stores.setdefault("baseline", RunningMean(self.divisor == "epochs+1"))

    def __call__(self, context: Any, batch: Batch) -> Batch:
        reward = row_reward(batch)
        running: RunningMean = context.stores["baseline"]
        mean = float(reward.mean())
        baseline = self.first(mean) if not running.epochs else running.value
        batch.rows.advantage = self.of(reward, baseline).unsqueeze(1).expand(batch.rows.shape)
        batch.metrics["baseline"] = baseline
        running.add(mean)
        return batch

    def first(self, mean: float) -> float:
        """The baseline of the first epoch. Its rollouts are compared with each other; a shared signal has nothing to be compared with, and
        the authors' baseline is 0."""
        return mean if self.signal == "rollout" and self.divisor == "epochs" else 0.0

    def of(self, reward: Tensor, baseline: float) -> Tensor:
        """The signal ``[B]`` of rewards ``[B]``."""
        shared = reward if self.signal == "rollout" else reward.mean().expand(reward.shape)
        return torch.as_tensor(shared - baseline)
