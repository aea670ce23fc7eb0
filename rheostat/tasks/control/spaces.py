"""Conversion between the spaces of an environment and the tensors of a policy.

Observations become one float32 vector (or one uint8 image), actions become what the environment expects. Everything is cast exactly once,
here.
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
LEAST_PICTURE = 8
"""Rows and columns from which a uint8 Box inside a Dict or Tuple is read as a picture; smaller ones are numbers."""


@dataclass(frozen=True, slots=True)
class Picture:
    """How pixels become ``[C, H, W]``: reshaped, their axes reordered, frames and channels joined."""

    axes: tuple[int, ...]  # of one raw picture, after the batch axis
    shape: tuple[int, int, int]  # [C, H, W]

    @classmethod
    def of(cls, space: Space) -> Picture:
        """Of a uint8 Box of two to four axes; the channel axis is the shorter of the first and the last, after an axis of frames."""
        raw = space.shape or ()
        if len(raw) == 2:
            return cls((0, 1), (1, *raw))
        frames = (0,) if len(raw) == 4 else ()
        first, middle, last = range(len(frames), len(frames) + 3)
        order = (first, middle, last) if raw[first] <= raw[last] else (last, first, middle)
        channels = math.prod(raw[axis] for axis in (*frames, order[0]))
        return cls((*frames, *order), (channels, raw[order[1]], raw[order[2]]))

    def turn(self, pixels: np.ndarray) -> np.ndarray:
        """``[N, *raw]`` to ``[N, C, H, W]``, a view where possible."""
        return pixels.transpose(0, *(axis + 1 for axis in self.axes)).reshape(len(pixels), *self.shape)


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
    picture: Picture | None = None  # pixels: how they are turned to channels first

    @property
    def field(self) -> str:
        return "observation" + "".join(f"[{key!r}]" for key in self.path)


def leaves_of(space: Space, task: str, *, in_order: bool = False) -> list[Leaf]:
    """The leaves of an observation space, entries of a Dict by name, so that the order of their definition does not matter.

    Args:
        space: of one observation.
        task: its name, for error messages.
        in_order: the entries of the outermost Dict as they come instead.

    Raises:
        RheostatError: text, sequences, graphs or unions, or a discrete space too large to encode one-hot.
    """
    leaves: list[Leaf] = []
    column = 0
    for path, part in _walk(space, in_order=in_order):
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
            picture = Picture.of(part) if path and is_image(part) and min(Picture.of(part).shape[1:]) >= LEAST_PICTURE else None
            leaves.append(Leaf(path, tuple(part.shape), column, width, None, None, None, picture))
        else:
            where = "".join(f"[{key!r}]" for key in path)
            raise RheostatError(
                f"The observation{where} of {task} is a {type(part).__name__} space, which has no fixed-size vector form: "
                "wrap the environment to leave this entry out (gymnasium.wrappers.FilterObservation) or to give Box, Discrete, Dict or "
                "Tuple observations; rheostat.tasks.control.make can choose entries with fields=(...)."
            )
        column += width
    return leaves


def _walk(space: Space, path: tuple[Any, ...] = (), *, in_order: bool = False) -> Iterator[tuple[tuple[Any, ...], Space]]:
    kind = type(space).__name__
    if kind == "Dict":
        entries = list(space.spaces.items())  # type: ignore[attr-defined]
        for key, part in entries if in_order else sorted(entries, key=lambda entry: str(entry[0])):
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
    """A uint8 Box of two to four axes: pixels, perhaps of several frames."""
    return type(space).__name__ == "Box" and space.dtype == np.uint8 and space.shape is not None and len(space.shape) in (2, 3, 4)


def stacked(raw: Any) -> Any:
    """One observation with a leading axis of 1 in every array."""
    if isinstance(raw, dict):
        return {key: stacked(value) for key, value in raw.items()}
    if isinstance(raw, tuple):
        return tuple(stacked(value) for value in raw)
    return np.asarray(raw)[None]


def arrays(raw: Any) -> Any:
    """Stacked observations as arrays."""
    if isinstance(raw, dict):
        return {key: arrays(value) for key, value in raw.items()}
    return tuple(arrays(value) for value in raw) if isinstance(raw, tuple) else np.asarray(raw)


def rows_of(space: Space, raw: Any) -> int | None:
    """How many observations ``raw`` holds, stacked; None for a single one.

    Args:
        space: of one observation.
        raw: one, or several with a leading axis in every array.
    """
    path, part = next(iter(_walk(space)))
    for key in path:
        raw = raw[key]
    found = np.shape(raw)
    return int(found[0]) if len(found) == len(part.shape or ()) + 1 else None


class ObservationEncoder:
    """Raw batched observations to one tensor.

    - a uint8 Box of two to four axes stays uint8 and becomes ``[E, C, H, W]``; the channel axis is the shorter of the first and the last of
      the three last axes, and a first of four is frames, joined with the channels;
    - everything else becomes one float32 vector ``[E, n]``: Box and MultiBinary are flattened, Discrete and MultiDiscrete one-hot encoded,
      Dict and Tuple entries concatenated, those of a Dict by name. Pictures among them take their columns with channels first and pixels
      from 0 to 1, and the encoded space says where they are (``pictures``), for a network of their own.

    Args:
        space: the observation space of one environment.
        task: name used in error messages.
        fields: which entries of a Dict observation to keep, in this order (all of them if None).
        copy: copy even where the dtype already fits, because the environment overwrites its buffers.

    Attributes:
        space: the gymnasium ``Box`` of one encoded observation.
    """

    def __init__(self, space: Space, task: str, *, fields: tuple[str, ...] | None = None, copy: bool = True) -> None:
        from gymnasium.spaces import Box, Dict

        self._key: str | None = None  # the one entry of a Dict that is used alone
        self._whole = space
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
        self._picture: Picture | None = None
        self.raw_space = space
        self.space: Box
        if not any(part.shape is None or math.prod(part.shape) for _, part in _walk(space)):
            raise RheostatError(
                f"The observation of {task} is {space}, which holds no number: give at least one, a constant where there is nothing to see."
            )
        if is_image(space):
            assert space.shape is not None
            self._image_shape = space.shape
            self._picture = Picture.of(space)
            self.space = Box(0, 255, self._picture.shape, np.uint8)
            return
        self._leaves = leaves_of(space, task, in_order=fields is not None)
        self._width = sum(leaf.width for leaf in self._leaves)
        self._plain = len(self._leaves) == 1 and not self._leaves[0].path and self._leaves[0].sizes is None
        self.space = Box(-np.inf, np.inf, (self._width,), np.float32)
        if self._leaves[0].path:
            names: Any = tuple((leaf.field, leaf.width) for leaf in self._leaves)
            pictures: Any = tuple((leaf.start, leaf.picture.shape) for leaf in self._leaves if leaf.picture is not None)
            self.space.entries, self.space.pictures = names, pictures  # type: ignore[attr-defined]

    def __call__(self, raw: Any, rows: int) -> Tensor:
        """Encode ``rows`` stacked observations.

        Raises:
            RheostatError: an entry is missing, has another shape than in the space, is not numeric, or is a category outside its space.
        """
        if self._key is not None:
            raw = raw[self._key]
        if self._picture is not None:
            pixels = np.asarray(raw)
            if pixels.shape != (rows, *self._image_shape) or pixels.dtype != np.uint8:
                raise RheostatError(
                    f"The observation of {self._task} has shape {list(pixels.shape)} and dtype {pixels.dtype}; "
                    f"its space says {[rows, *self._image_shape]} uint8."
                )
            turned = self._picture.turn(pixels)
            return torch.from_numpy(np.array(turned, order="C") if self._copy else np.ascontiguousarray(turned))
        if self._plain:
            value = self._check(raw, self._leaves[0], rows)
            flat = value.reshape(rows, self._width)
            return torch.from_numpy(np.array(flat, dtype=np.float32, order="C") if self._copy else np.asarray(flat, np.float32, order="C"))
        vector = np.zeros((rows, self._width), dtype=np.float32)
        for leaf in self._leaves:
            value = raw
            try:
                for key in leaf.path:
                    value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise RheostatError(f"The {leaf.field} is missing in what {self._task} gave: its observation_space has it.") from error
            value = self._check(value, leaf, rows)
            if leaf.picture is not None:
                np.divide(leaf.picture.turn(value).reshape(rows, -1), 255, out=vector[:, leaf.start : leaf.start + leaf.width])
            elif leaf.sizes is None:
                vector[:, leaf.start : leaf.start + leaf.width] = value.reshape(rows, leaf.width)
            else:
                self._one_hot(vector, value.reshape(rows, -1), leaf)
        return torch.from_numpy(vector)

    def any(self, raw: Any) -> tuple[Tensor, bool]:
        """Observations in any form, ``[N, ...]``, and whether ``raw`` was a single one.

        Args:
            raw: one observation as the environment gives it, several with a leading axis in every array, or encoded ones.

        Raises:
            RheostatError: none of these.
        """
        space, ready = self.raw_space if self._key is None else self._whole, self.space
        if self._is_encoded(raw):
            tensor = torch.as_tensor(raw)
            tensor = tensor if ready.dtype == np.uint8 else tensor.float()
            single = tensor.dim() == len(ready.shape)
            return (tensor.unsqueeze(0) if single else tensor), single
        if space.shape is not None and not any(np.shape(raw) == (*lead, *space.shape) for lead in ((), np.shape(raw)[:1])):
            raise RheostatError(f"The policy expects observations of shape {list(space.shape)}, got {list(np.shape(raw))}.")
        try:
            rows = rows_of(space, raw)
        except (KeyError, IndexError, TypeError) as error:
            raise RheostatError(f"An observation of {self._task} is in {space}; this one lacks {error}.") from error
        return (self(stacked(raw), 1), True) if rows is None else (self(arrays(raw), rows), False)

    def _is_encoded(self, raw: Any) -> bool:
        """Whether an array has the shape of encoded observations, and not that of raw ones."""
        if isinstance(raw, dict | tuple):
            return False
        shape, ready, space = tuple(np.shape(raw)), self.space.shape, self.raw_space
        if space.shape is not None and len(shape) - len(space.shape) in (0, 1) and shape[len(shape) - len(space.shape) :] == space.shape:
            return isinstance(raw, Tensor) and space.shape == ready
        return len(shape) - len(ready) in (0, 1) and shape[len(shape) - len(ready) :] == ready

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
