"""How much methods differ on the same tokens (or steps): pure functions of gradients and of weights per token.

The weight of a token is ``-d loss / d log pi(token)``: above 0 the update makes it more likely, below 0 less, and the sum of weight times
``grad log pi`` is the method's policy gradient.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

NOTHING = 1e-8
"""Gradients shorter than this are 0: rounding."""
SCALED = 0.01
"""Relative distance from the usual factor on the advantage from which a token counts as scaled."""


@dataclass(frozen=True)
class Tokens:
    """How a method treats the tokens of a batch. The first five are shares that sum to 1."""

    up: float
    """Made more likely."""
    down: float
    """Made less likely."""
    clipped: float
    """Their gradient is cut by the clip."""
    idle: float
    """In the loss, with weight 0: no advantage, or a weight of 0."""
    left_out: float
    """Not in the loss: masked, or their row or group was filtered."""
    scaled: float | None
    """Among those that move: the share whose weight per unit of advantage is more than 1 % off the method's median."""
    effective: float
    """(sum |w|)^2 / (n sum w^2): the share of all tokens that carry the update; 1 where all weigh the same."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def without_rounding(weight: Tensor) -> Tensor:
    """The weights ``[n]`` with rounding errors set to 0: below a millionth of the largest, or of 0.1 / n."""
    floor = max(1e-6 * float(weight.abs().max()), 1e-7 / len(weight)) if len(weight) else 0.0
    return weight.masked_fill(weight.abs() <= floor, 0.0)


def describe_tokens(weight: Tensor, *, clipped: Tensor, kept: Tensor, advantage: Tensor) -> Tokens:
    """Shares of the tokens of a batch, all arguments ``[n]`` over every token that was written.

    Args:
        weight: float64, 0 for tokens outside the loss.
        clipped: bool, cut by the clip.
        kept: bool, in the loss.
        advantage: the method's own.
    """
    count = len(weight)
    moved = (weight != 0) & ~clipped
    up, down, cut = ((mask.sum() / count).item() for mask in (moved & (weight > 0), moved & (weight < 0), clipped & kept))
    left_out = (~kept).sum().item() / count
    per_advantage = (weight / advantage)[moved & (advantage != 0)]
    scaled = None
    if len(per_advantage):
        usual = per_advantage.median()
        scaled = ((per_advantage - usual).abs() > SCALED * usual.abs()).double().mean().item()
    square = weight.square().sum()
    effective = (weight.abs().sum().square() / (count * square)).item() if square > 0 else 0.0
    return Tokens(up, down, cut, max(0.0, 1 - up - down - cut - left_out), left_out, scaled, effective)


def cosine(a: Tensor, b: Tensor, *, nothing: float = 0.0) -> float | None:
    """Cosine of two vectors ``[n]``; None where one of them is not longer than ``nothing``."""
    a, b = a.double(), b.double()
    lengths = float(a.norm()), float(b.norm())
    if min(lengths) <= nothing:
        return None
    return max(-1.0, min(1.0, float(a @ b) / (lengths[0] * lengths[1])))


def signs_differ(a: Tensor, b: Tensor) -> float:
    """Share of tokens whose weights differ in sign; one that moves while the other does not counts."""
    return (a.sign() != b.sign()).double().mean().item()


def opposed(a: Tensor, b: Tensor) -> float:
    """Share of tokens that one makes more likely and the other less."""
    return (a.sign() * b.sign() < 0).double().mean().item()


def distance(a: Tensor, b: Tensor) -> float | None:
    """1 - cosine of the weight vectors over the tokens, in [0, 2]; None where one of them is 0."""
    found = cosine(a, b)
    return None if found is None else 1 - found


def dispute(weights: Tensor) -> Tensor:
    """How much methods differ on every token, ``[n]`` from ``[methods, n]``: the share of pairs whose signs differ, and a tenth of the
    spread of the weights, each method's in units of its own root mean square."""
    signs, count = weights.sign(), len(weights)
    pairs = sum((signs == sign).double().sum(0).square() for sign in (-1, 0, 1))
    size = weights.square().mean(1, keepdim=True).sqrt()
    spread = (weights / size.clamp(min=1e-300)).std(0)
    return 1 - (pairs - count) / (count * (count - 1)) + 0.1 * spread


def most_disputed(weights: Tensor, mask: Tensor, rows: int, longest: int) -> list[tuple[int, int, int]]:
    """The rows, and in them the stretch, on which methods differ most: in turn one that they make more likely, and one less likely.

    Args:
        weights: ``[methods, n]`` over the tokens of the mask.
        mask: bool ``[B, T]``.
        rows: how many rows.
        longest: tokens of a stretch at most.

    Returns:
        ``(row, first, end)`` counted in the row's tokens of the mask.
    """
    lengths = mask.sum(1).tolist()
    sides: dict[bool, list[tuple[float, int, int, int]]] = {True: [], False: []}
    parts = zip(dispute(weights).split(lengths), weights.sign().sum(0).split(lengths), strict=True)
    for row, (disputed, direction) in enumerate(parts):
        if not lengths[row]:
            continue
        width = min(longest, lengths[row])
        sums = disputed.unfold(0, width, 1).mean(1)
        first = int(sums.argmax())
        sides[bool(direction.sum() > 0)].append((-float(sums[first]), row, first, first + width))
    more, less = (sorted(side) for side in sides.values())
    turns = [one for pair in itertools.zip_longest(more, less) for one in pair if one is not None]
    return [(row, first, end) for _, row, first, end in turns[:rows]]
