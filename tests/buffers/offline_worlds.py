"""Small data sets for the tests: two episodes of three and two steps, and whatever is to be wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rheostat.buffers.offline import OfflineData
from rheostat.trajectories import Transitions

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACTIONS = spaces.Box(-1.0, 1.0, (1,), np.float32)


def fields(lengths: tuple[int, ...] = (3, 2), seed: int = 0) -> dict[str, Tensor]:
    """Fields of transitions in time order: the first episode terminates, the others are truncated."""
    generator = torch.Generator().manual_seed(seed)
    here, there = [], []
    for length in lengths:
        seen = torch.randn(length + 1, 2, generator=generator)
        here.append(seen[:-1])
        there.append(seen[1:])
    count = sum(lengths)
    ends = torch.tensor(lengths).cumsum(0) - 1
    terminated, truncated = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    terminated[ends[:1]] = True
    truncated[ends[1:]] = True
    return {
        "observation": torch.cat(here),
        "next_observation": torch.cat(there),
        "action": torch.rand(count, 1, generator=generator) * 2 - 1,
        "reward": torch.arange(1.0, count + 1),
        "terminated": terminated,
        "truncated": truncated,
        "sampler_logp": -torch.rand(count, generator=generator),
    }


def build(changes: dict[str, Tensor] | None = None, lengths: tuple[int, ...] = (3, 2), **options: Any) -> OfflineData:
    """The data set with some fields changed."""
    values = fields(lengths) | (changes or {})
    breaks = torch.zeros(sum(lengths), dtype=torch.bool)
    breaks[torch.tensor(lengths).cumsum(0) - 1] = True
    given = {"observation_space": OBSERVATIONS, "action_space": ACTIONS, "task": "Pendulum-v1", "breaks": breaks} | options
    rows = Transitions(**values, batch_size=[len(values["reward"])])  # type: ignore[arg-type]
    return OfflineData(rows, **given)
