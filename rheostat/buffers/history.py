"""The last few blocks of experience, oldest first."""

from __future__ import annotations

from typing import Any

from rheostat.trajectories import Trajectories, join_in_time


class History:
    """A ring of the last ``capacity`` blocks of the same environments.

    Consecutive blocks continue each other in time, so the whole window is one stretch of experience per environment: advantages are
    computed across block borders (PROPS; its authors' second code release does it for the first block only).
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.blocks: list[Trajectories] = []

    @property
    def full(self) -> bool:
        """Whether the next block will push out the oldest."""
        return len(self.blocks) == self.capacity

    def append(self, block: Trajectories) -> Trajectories:
        """Add a block, dropping the oldest when full; returns the window ``[B, T]``, oldest step first."""
        self.blocks = [*self.blocks, block][-self.capacity :]
        return join_in_time(self.blocks)

    def cut(self) -> None:
        """Mark the newest steps as truncated: the environments were restarted, so the next block does not continue this one."""
        if self.blocks:
            newest = self.blocks[-1]
            newest.truncated = newest.truncated.clone()
            newest.truncated[:, -1] |= ~newest.terminated[:, -1]

    def state_dict(self) -> dict[str, Any]:
        """All blocks, as dicts of tensors."""
        return {"blocks": [{name: value for name, value in block.items() if value is not None} for block in self.blocks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved blocks."""
        self.blocks = [Trajectories(**block, batch_size=list(block["mask"].shape)) for block in state["blocks"]]
