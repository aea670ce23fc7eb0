"""Between the spaces of a world and the tensors of a policy.

Observations become one float32 vector (or one uint8 image), actions become what the world expects. Everything is cast exactly once, here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError

if TYPE_CHECKING:
    from gymnasium import Space

LARGEST_ONE_HOT = 65_536


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of a (possibly nested) observation and the columns it takes in the flat vector."""

    path: tuple[Any, ...]  # keys that lead to it; empty for a bare observation
    shape: tuple[int, ...]  # of one environment's value
    start: int
    width: int
    offset: np.ndarray | None  # one-hot: column of category 0 of each component, [k]
    first: np.ndarray | None  # one-hot: lowest category of each component, [k]
    sizes: np.ndarray | None  # one-hot: number of categories of each component, [k]

    @property
    def field(self) -> str:
        return "observation" + "".join(f"[{key!r}]" for key in self.path)


def leaves_of(space: Space, task: str) -> list[Leaf]:
    """The leaves of an observation space in the space's own order.

    Raises:
        RheostatError: text, sequences, graphs or unions, or a discrete space too large to encode one-hot.
    """
    leaves: list[Leaf] = []
    column = 0
    for path, part in _walk(space):
        sizes, first = _categories(part)
        if sizes is not None:
            width = int(sizes.sum())
            if width > LARGEST_ONE_HOT:
                raise RheostatError(
                    f"The observation of {task} is discrete with {width} values, too many for a one-hot vector (limit {LARGEST_ONE_HOT}): "
                    "give the environment a Box observation instead."
                )
            offset = column + np.cumsum(sizes) - sizes
            leaves.append(Leaf(path, tuple(part.shape or ()), column, width, offset, first, sizes))
        elif type(part).__name__ in ("Box", "MultiBinary"):
            assert part.shape is not None
            width = math.prod(part.shape)
            leaves.append(Leaf(path, tuple(part.shape), column, width, None, None, None))
        else:
            where = "".join(f"[{key!r}]" for key in path)
            raise RheostatError(
                f"The observation{where} of {task} is a {type(part).__name__} space, which has no fixed-size vector form: "
                "choose other entries with fields=(...), or wrap the environment to give Box, Discrete, Dict or Tuple observations."
            )
        column += width
    return leaves


def _walk(space: Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Space]]:
    kind = type(space).__name__
    if kind == "Dict":
        for key, part in space.spaces.items():  # type: ignore[attr-defined]
            yield from _walk(part, (*path, key))
    elif kind == "Tuple":
        for key, part in enumerate(space.spaces):  # type: ignore[attr-defined]
            yield from _walk(part, (*path, key))
    else:
        yield path, space


def _categories(space: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Number of categories and lowest category of each component, or (None, None) for numbers."""
    kind = type(space).__name__
    if kind == "Discrete":
        return np.array([space.n], dtype=np.int64), np.array([space.start], dtype=np.int64)
    if kind == "MultiDiscrete":
        return space.nvec.astype(np.int64).ravel(), space.start.astype(np.int64).ravel()
    return None, None


def is_image(space: Space) -> bool:
    """A uint8 Box of two or three axes: pixels."""
    return type(space).__name__ == "Box" and space.dtype == np.uint8 and space.shape is not None and len(space.shape) in (2, 3)


class ObservationEncoder:
    """Raw batched observations to one tensor.

    - a uint8 Box of two or three axes stays uint8 and becomes ``[E, C, H, W]``; the channel axis is the shorter of the first and the last;
    - everything else becomes one float32 vector ``[E, n]``: Box and MultiBinary are flattened, Discrete and MultiDiscrete one-hot encoded,
      Dict and Tuple entries concatenated in the order of the space.

    Args:
        space: the observation space of one environment.
        task: name used in error messages.
        fields: which entries of a Dict observation to keep, in this order (all of them if None).
        copy: copy even where the dtype already fits, because the world overwrites its buffers.

    Attributes:
        space: the gymnasium ``Box`` of one encoded observation.
    """

    def __init__(self, space: Space, task: str, *, fields: tuple[str, ...] | None = None, copy: bool = True) -> None:
        from gymnasium.spaces import Box, Dict

        self._key: str | None = None  # the one entry of a Dict that is used alone
        if fields is not None:
            if not isinstance(space, Dict) or not set(fields) <= set(space.spaces):
                have = ", ".join(space.spaces) if isinstance(space, Dict) else "it is not a Dict"
                raise RheostatError(f"fields={fields!r} does not fit the observation of {task} (entries: {have}).")
            if len(fields) == 1:
                self._key = fields[0]
                space = space.spaces[fields[0]]
            else:
                space = _subset(space, fields)
        self._copy = copy
        self._task = task
        self._image_axes: tuple[int, ...] | None = None
        self.space: Box
        if is_image(space):
            assert space.shape is not None
            shape = space.shape if len(space.shape) == 3 else (1, *space.shape)
            self._image_shape = space.shape
            self._image_axes = (0, 1, 2, 3) if shape[0] <= shape[2] else (0, 3, 1, 2)
            self.space = Box(0, 255, tuple(shape[axis - 1] for axis in self._image_axes[1:]), np.uint8)
            return
        self._leaves = leaves_of(space, task)
        self._width = sum(leaf.width for leaf in self._leaves)
        self._plain = len(self._leaves) == 1 and not self._leaves[0].path and self._leaves[0].sizes is None
        self.space = Box(-np.inf, np.inf, (self._width,), np.float32)

    def __call__(self, raw: Any, rows: int) -> Tensor:
        """Encode ``rows`` stacked observations.

        Raises:
            RheostatError: an entry has another shape than the space says, is not numeric, or is a category outside its space.
        """
        if self._key is not None:
            raw = raw[self._key]
        if self._image_axes is not None:
            pixels = np.asarray(raw)
            if pixels.shape != (rows, *self._image_shape) or pixels.dtype != np.uint8:
                raise RheostatError(
                    f"The observation of {self._task} has shape {list(pixels.shape)} and dtype {pixels.dtype}; "
                    f"its space says {[rows, *self._image_shape]} uint8."
                )
            if pixels.ndim == 3:
                pixels = pixels[:, None]
            channels_first = pixels.transpose(self._image_axes)
            return torch.from_numpy(np.array(channels_first, order="C") if self._copy else np.ascontiguousarray(channels_first))
        if self._plain:
            value = self._check(raw, self._leaves[0], rows)
            flat = value.reshape(rows, self._width)
            return torch.from_numpy(np.array(flat, dtype=np.float32, order="C") if self._copy else np.asarray(flat, np.float32, order="C"))
        vector = np.zeros((rows, self._width), dtype=np.float32)
        for leaf in self._leaves:
            value = raw
            for key in leaf.path:
                value = value[key]
            value = self._check(value, leaf, rows)
            if leaf.sizes is None:
                vector[:, leaf.start : leaf.start + leaf.width] = value.reshape(rows, leaf.width)
            else:
                self._one_hot(vector, value.reshape(rows, -1), leaf)
        return torch.from_numpy(vector)

    def _check(self, value: Any, leaf: Leaf, rows: int) -> np.ndarray:
        value = np.asarray(value)
        if value.shape != (rows, *leaf.shape):
            raise RheostatError(
                f"The {leaf.field} of {self._task} has shape {list(value.shape)}; its space and the number of environments say "
                f"{[rows, *leaf.shape]}: correct the observation_space or the array the environment returns."
            )
        if value.dtype.kind not in "fiub":
            raise RheostatError(f"The {leaf.field} of {self._task} has dtype {value.dtype}; numbers are needed.")
        return value

    def _one_hot(self, vector: np.ndarray, value: np.ndarray, leaf: Leaf) -> None:
        assert leaf.first is not None and leaf.offset is not None and leaf.sizes is not None
        category = value.astype(np.int64) - leaf.first
        outside = (category < 0) | (category >= leaf.sizes)
        if outside.any():
            row, component = np.argwhere(outside)[0]
            raise RheostatError(
                f"The {leaf.field} of {self._task} in environment {row} is {value[row, component]}, outside its discrete space of "
                f"{leaf.sizes[component]} values from {leaf.first[component]}."
            )
        vector[np.arange(len(value))[:, None], leaf.offset + category] = 1.0


def _subset(space: Any, fields: tuple[str, ...]) -> Space:
    """A Dict space of some entries, in the order given (gymnasium's constructor would sort them)."""
    from gymnasium.spaces import Dict

    return Dict([(field, space.spaces[field]) for field in fields])


class ActionDecoder:
    """The policy's raw action to the array the world gets.

    Box actions are clipped to their bounds for the world only (PPO detail 27: the policy stores and scores the raw action).

    Attributes:
        space: the action space the policy sees: Box float32, Discrete from 0, MultiDiscrete from 0 (also for a Box of bounded integers) or
            MultiBinary.
    """

    def __init__(self, space: Space, task: str, num_envs: int) -> None:
        from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

        self._task = task
        self._low: Any = None
        self._high: Any = None
        self._first: Any = None
        self._largest: Any = None
        self.space: Space
        if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
            low, high = space.low.astype(np.float32), space.high.astype(np.float32)
            self.space = Box(low, high, dtype=np.float32)
            if np.isfinite(low).any() or np.isfinite(high).any():
                self._low, self._high = torch.from_numpy(low), torch.from_numpy(high)
            shape = space.shape
        elif isinstance(space, Discrete):
            self.space, shape = Discrete(int(space.n)), ()
            self._first, self._largest = np.int64(space.start), np.uint64(space.n - 1)
        elif isinstance(space, Box) and np.issubdtype(space.dtype, np.integer) and space.is_bounded() and len(space.shape) == 1:
            low = space.low.astype(np.int64)
            choices: Any = space.high.astype(np.int64) - low + 1
            self.space, shape = MultiDiscrete(choices), space.shape
            self._first, self._largest = low, (choices - 1).astype(np.uint64)
        elif isinstance(space, MultiDiscrete):
            if space.nvec.ndim != 1:
                raise RheostatError(f"The action of {task} is MultiDiscrete with {space.nvec.ndim} axes; only one axis is supported.")
            self.space, shape = MultiDiscrete(space.nvec), space.nvec.shape
            self._first, self._largest = space.start.astype(np.int64), (space.nvec - 1).astype(np.uint64)
        elif isinstance(space, MultiBinary):
            self.space, shape = space, space.shape
            self._first, self._largest = np.int64(0), np.uint64(1)
        else:
            raise RheostatError(
                f"The action of {task} is {space}; supported are a Box of floats, a Box of bounded integers with one axis, Discrete, "
                "MultiDiscrete and MultiBinary: wrap the environment, for example with gymnasium.wrappers.TransformAction."
            )
        self._shape = (num_envs, *shape)

    def __call__(self, action: Tensor) -> np.ndarray:
        """A fresh array, float32 or int64, that the caller may keep.

        Raises:
            RheostatError: wrong shape, a NaN or infinite action, or a category outside the space.
        """
        if tuple(action.shape) != self._shape:
            raise RheostatError(f"The action for {self._task} has shape {list(action.shape)}; {list(self._shape)} is needed.")
        action = action.detach().cpu()
        if self._first is None:
            action = action.to(torch.float32)
            command = (action.clone() if self._low is None else action.clamp(self._low, self._high)).numpy()
            # Clipping turns an infinity into a bound, which is a legal action; what is left to refuse is NaN (or infinity without bounds).
            if not math.isfinite(np.vdot(command, command)) and not np.isfinite(command).all():
                row = int(np.argwhere(~np.isfinite(command))[0][0])
                raise RheostatError(f"The policy's action for environment {row} of {self._task} is not finite: the policy has diverged.")
            return command
        if action.is_floating_point():
            raise RheostatError(f"The action for {self._task} has dtype {action.dtype}; its space {self.space} needs integers.")
        choice = action.to(torch.int64).numpy()
        if (choice.view(np.uint64) > self._largest).any():  # a negative number is a huge one without its sign
            raise RheostatError(f"An action for {self._task} lies outside {self.space}: smallest {choice.min()}, largest {choice.max()}.")
        return choice + self._first
