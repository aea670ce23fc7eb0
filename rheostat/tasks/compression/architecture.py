"""Architectures of convolutional networks as data: a chain of layers, some of them in residual blocks; how they are cut, counted and built.

A layer holds what it makes (its size), never what it reads: channels in follow from the layers before it, so that a chain from which
layers are taken is again a network. What the sum of a residual block forces to be equal is not stored twice either: the last convolution
of a branch makes as many channels as its shortcut does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

TYPES = {
    "Flatten": 0,
    "Conv2d": 1,
    "MaxPool2d": 2,
    "ReLU": 3,
    "BatchNorm2d": 4,
    "Linear": 5,
    "Dropout": 6,
    "AvgPool2d": 8,
    "AdaptiveAvgPool2d": 8,
}
"""Kinds of layers, and the numbers of their types as controllers read them (those of the authors; flattening is their unknown one)."""
FIXED = frozenset({"Linear", "AvgPool2d", "AdaptiveAvgPool2d", "Flatten"})
"""Kinds that are never removed nor shrunk."""
MOST_INPUTS = 50_000
"""Numbers that a linear layer may read; a network that needs more counts as one that cannot be built."""


class Impossible(Exception):
    """Layers that make no network for these images."""


@dataclass(frozen=True)
class Layer:
    """One layer; numbers that its kind does not have are 0."""

    kind: str
    kernel: int = 0
    """Side of the window; of adaptive pooling, the side of its result."""
    stride: int = 0
    size: int = 0
    """Channels of a convolution's result, or features of a linear layer's."""
    padding: int = 0
    bias: bool = True
    rate: float = 0.0
    """Share that dropout drops."""
    epsilon: float = 1e-5
    """Of batch normalisation."""

    @property
    def numbers(self) -> tuple[int, int, int, int, int]:
        """Type, kernel, stride, size and padding, as controllers read them."""
        return TYPES[self.kind], self.kernel, self.stride, self.size, self.padding

    @property
    def keeps_the_side(self) -> bool:
        """Whether its result is as wide and high as what it reads."""
        if self.kind not in ("Conv2d", "MaxPool2d", "AvgPool2d"):
            return self.kind not in ("AdaptiveAvgPool2d", "Flatten", "Linear")
        return self.stride == 1 and 2 * self.padding == self.kernel - 1


@dataclass(frozen=True)
class Block:
    """Layers whose result is added to that of a shortcut around them."""

    branch: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()
    """Empty: what the block reads."""


Item = Layer | Block


@dataclass(frozen=True)
class Place:
    """One layer of an architecture and where it stands."""

    layer: Layer
    block: int = -1
    """Number of its residual block; -1 outside of blocks."""
    in_shortcut: bool = False


@dataclass(frozen=True)
class Architecture:
    """A network before it has weights."""

    items: tuple[Item, ...]
    image: tuple[int, int, int]
    """Channels, height and width of what it reads."""

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every layer in order, of a block first its branch, then its shortcut."""
        found: list[Place] = []
        for number, item in enumerate(self.items):
            if isinstance(item, Layer):
                found.append(Place(item))
                continue
            found += [Place(layer, number) for layer in item.branch]
            found += [Place(layer, number, in_shortcut=True) for layer in item.shortcut]
        return tuple(found)

    @cached_property
    def head(self) -> int:
        """Place of the last layer that has a size: the one that makes the logits."""
        return max((index for index, place in enumerate(self.places) if place.layer.size), default=-1)

    @cached_property
    def parameters(self) -> int:
        """How many weights it has.

        Raises:
            Impossible: it is no network.
        """
        return sum(count for _, count in _walk(self.items, self.image))

    @cached_property
    def outputs(self) -> int:
        """How many numbers it makes of an image.

        Raises:
            Impossible: it is no network, or makes images.
        """
        channels, *sides = [self.image, *(shape for shape, _ in _walk(self.items, self.image))][-1]
        if sides != [1, 1]:
            raise Impossible("it makes images, not one row of numbers")
        return channels

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits: equal architectures have equal ones."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def replaced(self, change: Callable[[int, Layer], Layer | None]) -> Architecture:
        """The same chain with other layers in place of some, and without those for which ``change`` returns None; sizes are made to fit.

        Args:
            change: from the place of a layer and the layer.
        """
        places = iter(range(len(self.places)))

        def of(layers: Sequence[Layer]) -> tuple[Layer, ...]:
            changed = [change(next(places), layer) for layer in layers]
            return tuple(layer for layer in changed if layer is not None)

        items: list[Item] = []
        for item in self.items:
            items += of([item]) if isinstance(item, Layer) else [Block(of(item.branch), of(item.shortcut))]
        return replace(self, items=_fitted(items, self.image[0]))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"image": list(self.image), "items": [asdict(item) for item in self.items]}

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Architecture:
        """The inverse of :meth:`to_json`."""
        items: list[Item] = []
        for item in said["items"]:
            if "branch" in item:
                items.append(Block(*(tuple(Layer(**layer) for layer in item[name]) for name in ("branch", "shortcut"))))
            else:
                items.append(Layer(**item))
        channels, height, width = said["image"]
        return cls(tuple(items), (channels, height, width))


# --- sizes and shapes ---------------------------------------------------------------------------------------------------------------------


def _fitted(items: Sequence[Item], channels: int) -> tuple[Item, ...]:
    """Blocks with a branch that makes as many channels as the shortcut; a block whose branch convolves nothing is its shortcut alone."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, Layer):
            found.append(item)
            channels = item.size or channels
            continue
        last = max((index for index, layer in enumerate(item.branch) if layer.kind == "Conv2d"), default=None)
        made = next((layer.size for layer in reversed(item.shortcut) if layer.kind == "Conv2d"), channels)
        if last is None:
            found += item.shortcut
        else:
            branch = tuple(replace(layer, size=made) if index == last else layer for index, layer in enumerate(item.branch))
            found.append(Block(branch, item.shortcut))
        channels = made
    return tuple(found)


Shape = tuple[int, int, int]


def _walk(items: Sequence[Item], shape: Shape) -> Iterator[tuple[Shape, int]]:
    """The shape of every item's result and the number of its weights."""
    for item in items:
        if isinstance(item, Layer):
            before, shape = shape, _after(item, shape)
            yield shape, _weights(item, before)
            continue
        parts = [list(_walk(layers, shape)) for layers in (item.branch, item.shortcut)]
        ends = [part[-1][0] if part else shape for part in parts]
        if ends[0] != ends[1]:
            raise Impossible(f"a branch makes {ends[0]} and its shortcut {ends[1]}")
        shape = ends[0]
        yield shape, sum(weights for part in parts for _, weights in part)


def _after(layer: Layer, shape: Shape) -> Shape:
    """The shape of a layer's result; a row of numbers is an image of one pixel."""
    channels, height, width = shape
    if layer.kind == "Flatten":
        return channels * height * width, 1, 1
    if layer.kind == "Linear":
        if (height, width) != (1, 1):
            raise Impossible("a linear layer reads an image that nothing flattened")
        if channels > MOST_INPUTS:
            raise Impossible(f"a linear layer reads {channels:,} numbers, and {MOST_INPUTS:,} are the most")
        return layer.size, 1, 1
    if layer.kind == "AdaptiveAvgPool2d":
        return channels, layer.kernel, layer.kernel
    if layer.kind not in ("Conv2d", "MaxPool2d", "AvgPool2d"):
        return shape
    if layer.kind != "Conv2d" and 2 * layer.padding > layer.kernel:
        raise Impossible("a pool is padded by more than half of its window")
    height, width = ((side + 2 * layer.padding - layer.kernel) // layer.stride + 1 for side in (height, width))
    if min(height, width) < 1:
        raise Impossible("an image becomes smaller than one pixel")
    return layer.size or channels, height, width


def _weights(layer: Layer, reads: Shape) -> int:
    if layer.kind == "BatchNorm2d":
        return 2 * reads[0]
    if layer.kind not in ("Conv2d", "Linear"):
        return 0
    window = layer.kernel**2 if layer.kind == "Conv2d" else 1
    return layer.size * (reads[0] * window + layer.bias)


# --- real networks ------------------------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A branch whose result is added to a shortcut's."""

    def __init__(self, branch: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, image: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C, H, W]``."""
        found: Tensor = self.branch(image) + self.shortcut(image)
        return found


class ConvNet(nn.Module):
    """A network of an architecture, with new weights.

    Args:
        architecture: what it is made of.

    Raises:
        Impossible: that is no network.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        assert architecture.parameters > 0
        self.layers = _sequence(architecture.items, architecture.image)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        found: Tensor = self.layers(images)
        return found

    def in_order(self) -> list[nn.Module]:
        """One module for every place of the architecture."""
        found: list[nn.Module] = []
        for module in self.layers:
            found += [*module.branch, *module.shortcut] if isinstance(module, Residual) else [module]
        return found


def _sequence(items: Sequence[Item], shape: Shape) -> nn.Sequential:
    made: list[nn.Module] = []
    for item in items:
        if isinstance(item, Layer):
            made.append(_module(item, shape[0]))
        else:
            made.append(Residual(_sequence(item.branch, shape), _sequence(item.shortcut, shape)))
        (shape, _) = next(_walk([item], shape))
    return nn.Sequential(*made)


def _module(layer: Layer, channels: int) -> nn.Module:
    """A layer that reads so many channels or features."""
    match layer.kind:
        case "Conv2d":
            return nn.Conv2d(channels, layer.size, layer.kernel, layer.stride, layer.padding, bias=layer.bias)
        case "Linear":
            return nn.Linear(channels, layer.size, bias=layer.bias)
        case "BatchNorm2d":
            return nn.BatchNorm2d(channels, eps=layer.epsilon)
        case "MaxPool2d":
            return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
        case "AvgPool2d":
            return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding)
        case "AdaptiveAvgPool2d":
            return nn.AdaptiveAvgPool2d(layer.kernel)
        case "Dropout":
            return nn.Dropout(layer.rate)
        case "Flatten":
            return nn.Flatten()
        case "ReLU":
            return nn.ReLU()
        case other:
            raise Impossible(f"there is no layer {other}")
