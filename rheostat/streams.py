"""Named random streams: every use of chance in a run has its own generator, derived from the run's seed and saved with the run.

Separate streams are why evaluating never changes training, and why one method's extra draws do not shift another's.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derive_seed(seed: int, *names: str | int) -> int:
    """A 30-bit seed for a purpose (``derive_seed(0, "pool", 3)``); different purposes and neighbouring seeds share nothing."""
    words = [zlib.crc32(str(name).encode()) for name in names]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint32)[0]) & 0x3FFFFFFF


class Streams:
    """``streams["actions"]`` is a ``torch.Generator`` that only the drawing of actions uses."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            import torch  # late: processes that grade derive seeds and never draw a tensor

            self._generators[name] = torch.Generator().manual_seed(derive_seed(self.seed, name))
        return self._generators[name]

    def state_dict(self) -> dict[str, Any]:
        """The seed and the state of every stream used so far (uint8 tensors)."""
        return {"seed": self.seed, "streams": {name: generator.get_state() for name, generator in sorted(self._generators.items())}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue every stream where ``state_dict`` left it."""
        self.seed = state["seed"]
        self._generators = {}
        saved: dict[str, Tensor] = state["streams"]
        for name, value in saved.items():
            self[name].set_state(value)
