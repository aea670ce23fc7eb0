"""A seed and all actions since: the whole state of a deterministic batched environment that cannot be saved."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

LONGEST = 200_000
"""Steps of one environment that are repeated at most."""


WHY = "it is not deterministic given its seed, or its version changed"


class Lost(Exception):
    """An environment cannot be restored; the message ends the sentence "... because"."""


class Cursor:
    """The actions since the environments were made, and a checksum of what they returned.

    Attributes:
        seed: of the environments.
        actions: one array ``[E, ...]`` per step, as given to the environments; dropped after :data:`LONGEST` of them.
        resets: the numbers of steps after which ``reset()`` was called again.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.actions: list[np.ndarray] = []
        self.resets: list[int] = []
        self.checksum = 0
        self.full = False

    def record(self, action: np.ndarray, observation: Tensor, reward: Tensor) -> None:
        """Record one step and its result."""
        if self.full:
            return
        self.actions.append(action)
        self._note(observation, reward)
        if len(self.actions) * len(action) > LONGEST:
            self.full, self.actions = True, []

    def _note(self, *answer: Tensor) -> None:
        for part in answer:
            self.checksum = zlib.crc32(part.numpy().tobytes(), self.checksum)

    def record_reset(self) -> None:
        """Record a reset of all environments in the middle."""
        self.resets.append(len(self.actions))

    def replay(self, reset: Callable[[], Tensor], step: Callable[[np.ndarray], Any]) -> None:
        """Repeat all actions on fresh environments of the same seed.

        Raises:
            Lost: they returned other results, or there are too many steps to repeat.
        """
        if self.full:
            raise Lost(f"{LONGEST:,} steps are the most that are repeated")
        checksum, resets = self.checksum, list(self.resets)
        self.checksum = 0
        reset()
        for index, action in enumerate(self.actions):
            while resets and resets[0] == index:
                resets.pop(0)
                reset()
            answer = step(action)
            self._note(answer.observation, answer.reward)
        for _ in resets:
            reset()
        if checksum != self.checksum:
            raise Lost(
                f"repeating {len(self.actions):,} steps went another way: it is not deterministic given its seed, or its version changed"
            )

    def state_dict(self) -> dict[str, Any]:
        """Seed, resets, actions ``[T, E, ...]`` (None before the first step) and the checksum."""
        actions = torch.from_numpy(np.stack(self.actions)) if self.actions else None
        return {"seed": self.seed, "resets": list(self.resets), "actions": actions, "checksum": self.checksum, "full": self.full}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Cursor:
        """The cursor that was saved."""
        cursor = cls(state["seed"])
        cursor.resets, cursor.checksum, cursor.full = list(state["resets"]), state["checksum"], state["full"]
        cursor.actions = [] if state["actions"] is None else list(state["actions"].numpy())
        return cursor
