"""What a controller may do to an architecture: which of its decisions count, and the network that they make (section 3.2 of N2N).

Removal decides for every layer whether it stays. Shrinkage decides for every layer and each of its five numbers (type, kernel, stride,
size, padding) what is left of it. A decision that cannot change anything is masked: it is no action, so nothing is learned from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rheostat.tasks.compression.architecture import FIXED, Architecture, Impossible, Layer, Place

REMOVE, KEEP = 0, 1
"""Actions of removal."""
LOOKUP = (0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""What an action of shrinkage leaves of a number; a half is in it five times, so that it is the likeliest at first."""
UNCHANGED = len(LOOKUP) - 1
KERNEL, STRIDE, SIZE, PADDING = 1, 2, 3, 4
NUMBERS = 5
LEAST = (0, 1, 1, 10, 0)
"""Smallest value to which each number shrinks."""


def removable(architecture: Architecture) -> list[bool]:
    """For every layer, whether it may go: not the first one, the one that makes the logits, and those of :data:`~.architecture.FIXED`;
    no strided convolution, no shortcut, and in a branch nothing that changes the side of an image."""
    return [_may_go(architecture, index, place) for index, place in enumerate(architecture.places)]


def _may_go(architecture: Architecture, index: int, place: Place) -> bool:
    layer = place.layer
    if index in (0, architecture.head) or layer.kind in FIXED or place.in_shortcut:
        return False
    if layer.kind == "Conv2d" and layer.stride > 1:
        return False
    return place.block < 0 or layer.keeps_the_side


def shrinkable(architecture: Architecture, *, strided: bool = True) -> list[list[bool]]:
    """For every layer and each of its numbers, whether it may shrink and has something to lose.

    In residual blocks only numbers of channels shrink, and not that of a branch's last convolution, which follows the shortcut.

    Args:
        architecture: of the network.
        strided: whether strided convolutions may have fewer channels.
    """
    last = {place.block: index for index, place in enumerate(architecture.places) if _ends_branch(place)}
    return [_may_shrink(architecture, index, place, last, strided) for index, place in enumerate(architecture.places)]


def _ends_branch(place: Place) -> bool:
    """Whether it may be the last convolution of a branch; the last one to say so is."""
    return place.block >= 0 and not place.in_shortcut and place.layer.kind == "Conv2d"


def _may_shrink(architecture: Architecture, index: int, place: Place, last: dict[int, int], strided: bool) -> list[bool]:
    layer = place.layer
    may = [False] * NUMBERS
    if index == architecture.head or layer.kind in FIXED:
        return may
    wide = layer.kind == "Conv2d" and layer.stride > 1
    may[SIZE] = layer.kind == "Conv2d" and last.get(place.block) != index and (strided or not wide)
    if place.block < 0 and not wide:
        may[KERNEL] = may[STRIDE] = may[PADDING] = layer.kind in ("Conv2d", "MaxPool2d")
    return [free and number > least for free, number, least in zip(may, layer.numbers, LEAST, strict=True)]


def shrunk(number: int, action: int, least: int) -> int:
    """What an action of shrinkage leaves of a number."""
    return max(int(number * LOOKUP[action]), least)


def removed(architecture: Architecture, actions: Sequence[int]) -> Architecture:
    """The network without the layers whose action is :data:`REMOVE`; actions of layers that must stay do nothing.

    Args:
        architecture: of the network.
        actions: one per layer.
    """
    free = removable(architecture)
    return architecture.replaced(lambda index, layer: None if free[index] and actions[index] == REMOVE else layer)


def shrunken(architecture: Architecture, actions: Sequence[int], *, strided: bool = True) -> Architecture:
    """The network with smaller layers; actions of numbers that must stay do nothing.

    Args:
        architecture: of the network.
        actions: five per layer, in order: of its type (which never changes), kernel, stride, size and padding.
        strided: as in :func:`shrinkable`.
    """
    free = shrinkable(architecture, strided=strided)

    def change(index: int, layer: Layer) -> Layer:
        _, kernel, stride, size, padding = (
            shrunk(number, actions[NUMBERS * index + which], LEAST[which]) if free[index][which] else number
            for which, number in enumerate(layer.numbers)
        )
        return replace(layer, kernel=kernel, stride=stride, size=size, padding=padding)

    return architecture.replaced(change)


def fault_of(child: Architecture, parent: Architecture) -> str | None:
    """Why a child is worth nothing: it is no network, makes other numbers, or is not smaller than its parent; None where it is sound."""
    try:
        if child.outputs != parent.outputs:
            return f"it makes {child.outputs} numbers instead of {parent.outputs}"
        return None if child.parameters < parent.parameters else "it is not smaller"
    except Impossible as error:
        return str(error)
