"""The dial: how far off-policy the data of a policy-gradient method may be.

Any such method, for control or for language, takes these numbers (``--dial.lag 4``). At zero everywhere the data are strictly on-policy:
sampled by the present policy, used for one gradient step, and thrown away.

    lag                who acts: the policy of so many updates ago, whose parameters are kept for it
    replay_share       what is kept: this share of every training batch was used before
    expert_share       who acts: this share of every training batch was written (or acted) by an expert
    updates_per_batch  how the policy moves: gradient steps on the same batch

Everything is deterministic and part of the run's state. The dial says where data come from and corrects nothing: whether a method corrects
for it is the method's own answer, and the meter shows the price.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rheostat.errors import RheostatError


@dataclass(frozen=True)
class Dial:
    """Zero everywhere is strictly on-policy."""

    lag: int = 0
    """Rollouts are sampled with the parameters of this many policy updates ago (of the start, while there are fewer)."""
    replay_share: float = 0.0
    """Share of every training batch that is drawn from earlier batches; the fresh part keeps its size, so the batch grows."""
    replay_age: int = 8
    """Oldest data that may be replayed, in policy updates."""
    expert_share: float = 0.0
    """Share of every training batch that an expert made: of every group (language), or of all rows (control)."""
    updates_per_batch: int | None = None
    """Gradient steps on every batch, each on the whole of it; 0 and 1 are strictly on-policy. None: as the method says."""

    @property
    def off(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.lag or self.replay_share or self.expert_share) and self.updates_per_batch is None

    def check(self, method: str, refused: Mapping[str, str]) -> None:
        """Refuse values that mean nothing, and what the method cannot honour.

        Args:
            method: its name, for the sentence.
            refused: by field, why this method cannot honour it.

        Raises:
            RheostatError: either.
        """
        if self.lag < 0:
            raise RheostatError(f"dial.lag is {self.lag}: it counts updates back, from 0.")
        for name in ("replay_share", "expert_share"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise RheostatError(f"dial.{name} is {value}: a share of the batch, at least 0 and below 1.")
        if self.replay_share + self.expert_share >= 1:
            raise RheostatError(
                f"dial.replay_share {self.replay_share} and dial.expert_share {self.expert_share} leave nothing for the policy's own data: "
                "their sum must be below 1."
            )
        if self.replay_age < 1:
            raise RheostatError(f"dial.replay_age is {self.replay_age}: replayed data are at least 1 update old.")
        if (wanted := self.replay_share / (1 - self.replay_share)) > self.replay_age + 1e-9:
            raise RheostatError(
                f"dial.replay_share {self.replay_share:g} asks for {wanted:.3g} times as many old data as fresh ones, but dial.replay_age "
                f"keeps only the last {self.replay_age} batches: lower the share or raise the age."
            )
        if self.updates_per_batch is not None and self.updates_per_batch < 0:
            raise RheostatError(f"dial.updates_per_batch is {self.updates_per_batch}: it counts gradient steps, from 0.")
        for item in dataclasses.fields(self):
            if item.name in refused and getattr(self, item.name) != item.default:
                raise RheostatError(f"{method} cannot honour dial.{item.name}: {refused[item.name]}.")

    def check_budget(self, updates: int) -> None:
        """Refuse a lag that the run never reaches.

        Args:
            updates: policy updates that the whole run makes.

        Raises:
            RheostatError: the lag is not smaller.
        """
        if self.lag >= max(updates, 1) and self.lag:
            raise RheostatError(
                f"dial.lag is {self.lag}, but the whole run makes about {updates} updates, so no update would ever see data of a policy "
                "that has learned: lower the lag or raise the budget."
            )

    def replayed(self, fresh: int) -> int:
        """Rows (or groups) to replay beside ``fresh`` ones, so that they are ``replay_share`` of both."""
        return round(fresh * self.replay_share / (1 - self.replay_share))

    def apply(self, config: Any) -> Any:
        """The configuration with ``updates_per_batch`` in place of its own epochs and minibatches."""
        if self.updates_per_batch is None:
            return config
        return dataclasses.replace(config, epochs=max(1, self.updates_per_batch), minibatches=1)


def expert_rows_of(share: float, group_size: int) -> int:
    """Members of a group that an expert writes.

    Raises:
        RheostatError: the share is less than half a member, or leaves no room for the policy's own.
    """
    if not share:
        return 0
    count = math.floor(share * group_size + 0.5)
    if count < 1:
        raise RheostatError(f"dial.expert_share {share:g} of a group of {group_size} is no whole completion: raise it, or group_size.")
    if count >= group_size:
        raise RheostatError(f"dial.expert_share {share:g} of a group of {group_size} leaves no completion of the policy's own: lower it.")
    return count
