"""From a policy's action to what the environment expects: the shape, dtype, first category and bounds of its action space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError

if TYPE_CHECKING:
    from gymnasium import Space

MOST_CHOICES = 65_536


class ActionDecoder:
    """The policy's raw action to the array the environment gets.

    The policy knows one axis only: a Box of floats ``[k]``, one choice, or k choices. Box actions are clipped to their bounds here and
    nowhere else (PPO detail 27: the policy stores and scores the action as it was drawn).

    Attributes:
        space: the action space the policy sees: Box float32 ``[k]``, Discrete from 0, MultiDiscrete from 0 of one axis (also for a Box of
            bounded integers), or MultiBinary of one axis.
    """

    def __init__(self, space: Space, task: str, num_envs: int) -> None:
        from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

        self._task = task
        self._low: Any = None
        self._high: Any = None
        self._first: Any = None
        self._largest: Any = None
        self.space: Space
        shape = tuple(space.shape or ())
        if space.shape is not None and not math.prod(shape):
            raise RheostatError(f"The action of {task} is {space}, which holds no number: give at least one that acts.")
        self._dtype: Any = space.dtype
        if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
            low, high = space.low.reshape(-1), space.high.reshape(-1)
            self.space = Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
            if np.isfinite(low).any() or np.isfinite(high).any():
                self._low, self._high = low, high
        elif isinstance(space, Discrete) and space.n <= MOST_CHOICES:
            self.space = Discrete(int(space.n))
            self._first, self._largest = np.int64(space.start), np.uint64(space.n - 1)
        elif isinstance(space, Box) and np.issubdtype(space.dtype, np.integer) and _choices(space) is not None:
            choices: Any = _choices(space)
            self.space = MultiDiscrete(choices)
            self._first, self._largest = space.low.astype(np.int64).reshape(-1), (choices - 1).astype(np.uint64)
        elif isinstance(space, MultiDiscrete) and space.nvec.max() <= MOST_CHOICES:
            self.space = MultiDiscrete(space.nvec.reshape(-1))
            self._first, self._largest = space.start.astype(np.int64).reshape(-1), (space.nvec.reshape(-1) - 1).astype(np.uint64)
        elif isinstance(space, MultiBinary):
            self.space = MultiBinary(math.prod(shape))
            self._first, self._largest = np.int64(0), np.uint64(1)
        else:
            raise RheostatError(
                f"The action of {task} is {space}; supported are a Box of floats, a Box of bounded integers, Discrete and MultiDiscrete "
                f"(at most {MOST_CHOICES:,} values each), and MultiBinary: wrap the environment, for example with "
                "gymnasium.wrappers.TransformAction."
            )
        self._shape, self._flat = shape, tuple(self.space.shape or ())
        self.num_envs = num_envs

    def __call__(self, action: Tensor, rows: int | None = None) -> np.ndarray:
        """A fresh array ``[E, *shape]`` in the dtype of the environment's space that the caller may keep.

        Args:
            action: ``[E, k]`` (``[E]`` for Discrete), or ``[E, *shape]`` as the environment has it.
            rows: E, where it is not the number of environments.

        Raises:
            RheostatError: wrong shape, a NaN or infinite action, or a category outside the space.
        """
        rows = self.num_envs if rows is None else rows
        if tuple(action.shape) not in ((rows, *self._flat), (rows, *self._shape)):
            raise RheostatError(f"The action for {self._task} has shape {list(action.shape)}; {[rows, *self._flat]} is needed.")
        action = action.detach().cpu().reshape(rows, *self._flat)
        if self._first is None:
            command = action.to(torch.float32).numpy().astype(self._dtype)  # a copy
            if self._low is not None:
                np.clip(command, self._low, self._high, out=command)
            # Clipping turns an infinity into a bound, which is a legal action; what is left to refuse is NaN (or infinity without bounds).
            if not math.isfinite(np.vdot(command, command)) and not np.isfinite(command).all():
                row = int(np.argwhere(~np.isfinite(command))[0][0])
                raise RheostatError(f"The policy's action for environment {row} of {self._task} is not finite: the policy has diverged.")
            return command.reshape(rows, *self._shape)
        if action.is_floating_point():
            raise RheostatError(f"The action for {self._task} has dtype {action.dtype}; its space {self.space} needs integers.")
        choice = action.to(torch.int64).numpy()
        if (choice.view(np.uint64) > self._largest).any():  # a negative number is a huge one without its sign
            raise RheostatError(f"An action for {self._task} lies outside {self.space}: smallest {choice.min()}, largest {choice.max()}.")
        return (choice + self._first).astype(self._dtype).reshape(rows, *self._shape)


def _choices(space: Any) -> np.ndarray | None:
    """Number of values of every component of a Box of integers ``[k]``; None where there are too many."""
    low, high = (np.array([int(x) for x in bound.reshape(-1)], dtype=object) for bound in (space.low, space.high))
    choices = high - low + 1
    return choices.astype(np.int64) if len(choices) and max(choices) <= MOST_CHOICES else None
