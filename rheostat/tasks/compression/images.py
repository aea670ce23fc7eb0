"""Images that networks are trained on: a procedural world, scikit-learn's digits, and files of the user's.

Every set has three parts that never overlap. Networks are trained on the first, a search is rewarded on the second (the authors' code
rewards it on the test set), and the third is read once, at the end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import MissingExtra, RheostatError, shown_error, unknown
from rheostat.options import whole
from rheostat.streams import derive_seed

PARTS = ("train", "validation", "test")
SHARES = (0.64, 0.16, 0.2)
"""Of the parts, where a set does not come in parts."""
FEWEST = 2
"""Images and classes of every part."""


@dataclass(frozen=True)
class Images:
    """Images float32 ``[n, C, H, W]`` and their classes int64 ``[n]``, in three parts."""

    name: str
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.train[0].shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        """How many there are."""
        return 1 + max(int(part[1].max()) for part in (self.train, self.validation, self.test))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything."""
        total = hashlib.sha256()
        for images, labels in (self.train, self.validation, self.test):
            total.update(images.contiguous().numpy().tobytes())
            total.update(labels.contiguous().numpy().tobytes())
        return total.hexdigest()[:16]


# --- shapes -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShapeWorld:
    """Noisy pictures of shapes of random place, size and brightness."""

    side: int = 10
    """Pixels of an image's side."""
    classes: int = 8
    """How many of the shapes there are, at most ten."""
    noise: float = 0.1
    """Standard deviation of what is added to every pixel, where a shape's brightness is .6 to 1."""
    images: int = 3_000
    """Images in all; a sixth is for validation, and a sixth for the test."""

    def __post_init__(self) -> None:
        whole("side", self.side, at_least=6, at_most=256)
        whole("classes", self.classes, at_least=2, at_most=len(SHAPES))
        whole("images", self.images, at_least=60, at_most=10**6)
        if not isinstance(self.noise, int | float) or not 0 <= self.noise <= 10:
            raise RheostatError(f"noise is {self.noise!r}; it must be a number from 0 to 10.")

    def draw(self) -> Images:
        """The pictures; equal options draw equal ones."""
        generator = torch.Generator().manual_seed(derive_seed(0, "shapes"))
        count = self.images
        label = torch.arange(count) % self.classes

        def uniform(low: float, high: float) -> Tensor:
            return (low + (high - low) * torch.rand(count, generator=generator)).view(count, 1, 1)

        size = uniform(0.45, 0.8)
        axis = torch.linspace(-1, 1, self.side)
        x = (axis.view(1, 1, -1) - uniform(-0.2, 0.2)) / size
        y = (axis.view(1, -1, 1) - uniform(-0.2, 0.2)) / size
        x, y = torch.broadcast_tensors(x, y)
        picture = torch.zeros(count, self.side, self.side)
        for number, inside in enumerate(list(SHAPES.values())[: self.classes]):
            mine = label == number
            picture[mine] = inside(x[mine], y[mine]).float()
        noise = torch.randn(count, self.side, self.side, generator=generator)
        picture = (picture * uniform(0.6, 1.0) + self.noise * noise).unsqueeze(1)
        order = torch.randperm(count, generator=generator)
        sixth = count // 6
        parts = order.split([count - 2 * sixth, sixth, sixth])
        return Images("shapes", *((picture[part], label[part]) for part in parts))


def _in_square(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() <= 1) & (y.abs() <= 1)


SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disc": lambda x, y: x**2 + y**2 <= 1,
    "square": _in_square,
    "cross": lambda x, y: _in_square(x, y) & ((x.abs() < 0.35) | (y.abs() < 0.35)),
    "saltire": lambda x, y: _in_square(x, y) & (((x - y).abs() < 0.5) | ((x + y).abs() < 0.5)),
    "frame": lambda x, y: _in_square(x, y) & (torch.maximum(x.abs(), y.abs()) > 0.6),
    "triangle": lambda x, y: _in_square(x, y) & (y >= 2 * x.abs() - 1),
    "lying bar": lambda x, y: _in_square(x, y) & (y.abs() < 0.4),
    "standing bar": lambda x, y: _in_square(x, y) & (x.abs() < 0.4),
    "ring": lambda x, y: (x**2 + y**2 <= 1) & (x**2 + y**2 > 0.35),
    "corner": lambda x, y: _in_square(x, y) & ((x < -0.3) | (y > 0.3)),
}
"""Where each shape is, of coordinates in units of its half side."""


# --- digits, and files --------------------------------------------------------------------------------------------------------------------


def _digits() -> Images:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries, from 0 to 1."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "images", "The task 'digits'") from error
    data = load_digits()
    images = torch.from_numpy(np.ascontiguousarray(data.images, dtype=np.float32) / 16).unsqueeze(1)
    return Images("digits", *_divided(images, torch.from_numpy(np.asarray(data.target, dtype=np.int64)), SHARES))


def _divided(images: Tensor, labels: Tensor, shares: tuple[float, ...]) -> list[tuple[Tensor, Tensor]]:
    """Parts of a set by chance; equal sets are divided equally."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(derive_seed(0, "parts")))
    ends = [round(len(images) * sum(shares[: index + 1])) for index in range(len(shares))]
    return [(images[part], labels[part]) for part in order.tensor_split(ends[:-1])]


def _file(path: Path) -> Images:
    """A file of NumPy arrays ``x`` and ``y``, or ``x_train`` and ``y_train`` with ``x_test`` and ``y_test`` (and ``x_validation``)."""
    if not path.is_file():
        raise RheostatError(f"There is no file of images {path}: check the path.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise RheostatError(f"{path} cannot be read as NumPy arrays ({shown_error(error)}): save them with numpy.savez.") from error
    found = {part: _part(path, arrays, f"x_{part}", f"y_{part}") for part in PARTS if f"x_{part}" in arrays}
    if "train" not in found:
        if "x" not in arrays:
            held = ", ".join(sorted(arrays)) or "nothing"
            raise RheostatError(f"{path} holds {held}: it must hold images x and classes y, or x_train, y_train, x_test and y_test.")
        parts = dict(zip(PARTS, _divided(*_part(path, arrays, "x", "y"), SHARES), strict=True))
        parts |= found
    else:
        missing = [part for part in PARTS if part not in found]
        kept = [("train", 1 - 0.2 * len(missing)), *((part, 0.2) for part in missing)]
        divided = _divided(*found.pop("train"), tuple(share for _, share in kept))
        parts = found | dict(zip((part for part, _ in kept), divided, strict=True))
    images = Images(path.stem, *(parts[part] for part in PARTS))
    _check(path, images)
    return images


def _part(path: Path, arrays: Mapping[str, np.ndarray], x: str, y: str) -> tuple[Tensor, Tensor]:
    """One part of a file, checked."""
    if y not in arrays:
        raise RheostatError(f"{path} holds images {x} without their classes {y}: save both.")
    images, labels = arrays[x], arrays[y]
    if images.ndim not in (3, 4) or images.dtype.kind not in "fiub" or 0 in images.shape:
        raise RheostatError(f"{x} of {path} is {images.dtype} {list(images.shape)}: images are numbers [n, H, W] or [n, C, H, W].")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise RheostatError(f"{y} of {path} is {labels.dtype} {list(labels.shape)}: it must be {len(images)} whole numbers from 0 on.")
    pictures = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
    if not np.isfinite(pictures).all():
        raise RheostatError(f"{x} of {path} holds numbers that are not finite: clean them first.")
    pictures = pictures[:, None] if pictures.ndim == 3 else pictures
    return torch.from_numpy(np.ascontiguousarray(pictures)), torch.from_numpy(labels.astype(np.int64))


def _check(path: Path, images: Images) -> None:
    for name in PARTS:
        part: tuple[Tensor, Tensor] = getattr(images, name)
        if len(part[0]) < FEWEST:
            raise RheostatError(f"{path} leaves {len(part[0])} images for the part {name}: save more of them.")
        if part[0].shape[1:] != images.train[0].shape[1:]:
            raise RheostatError(f"Images of the part {name} of {path} are {list(part[0].shape[1:])}, and others {list(images.shape)}.")
    if images.classes < FEWEST:
        raise RheostatError(f"{path} has images of one class alone: there is nothing to tell apart.")
    missing = set(range(images.classes)) - set(images.train[1].tolist())
    if missing:
        raise RheostatError(f"{path} has no image of the class {min(missing)} to learn from: number the classes from 0 without gaps.")


IMAGE_TASKS = ("digits", "shapes")


def load_images(task: str, options: Mapping[str, Any] | None = None) -> Images:
    """The images of a task.

    Args:
        task: ``shapes``, ``digits``, or the path of a .npz file.
        options: of the shapes: side, classes, noise and images.

    Raises:
        RheostatError: there is no such task or option, or what is wrong with the file.
    """
    options = dict(options or {})
    if task == "shapes":
        known = [each.name for each in fields(ShapeWorld)]
        for name in options:
            if name not in known:
                raise unknown("option of the task shapes", name, known)
        return ShapeWorld(**options).draw()
    if options:
        raise RheostatError(f"The task {task} has no options: leave {', '.join(options)} out.")
    if task == "digits":
        return _digits()
    if task.endswith(".npz"):
        return _file(Path(task).expanduser())
    raise unknown("set of images", task, [*IMAGE_TASKS, "FILE.npz"])


def chance(images: Images) -> float:
    """The accuracy of always saying the commonest class of what is learned from, on the validation part."""
    commonest = int(torch.bincount(images.train[1]).argmax())
    found = float((images.validation[1] == commonest).float().mean())
    assert math.isfinite(found)
    return found
