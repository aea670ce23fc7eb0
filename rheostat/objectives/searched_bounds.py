"""Clip bounds that are searched for: the window widens until positive tokens supply a target share of the surrogate (BAPO).

With stale data the tokens of negative advantage outweigh the positive ones, and a fixed symmetric clip removes the very updates that
would let unlikely good tokens grow. For a window ``[low, high]`` of the ratio r the two sides of the clipped surrogate are

    positive(high) = sum over A > 0 of w min(r, high) A
    negative(low)  = sum over A < 0 of w max(r, low) |A|

The search moves the two bounds in steps from their start to their end until a measure of the balance reaches its target:

| form | weight w | measure | moves first | source |
|---|---|---|---|---|
| paper | sampler probability of the token | positive / (positive + negative) | the upper bound | Algorithm 1 of arXiv 2510.18927 |
| released | 1 | positive / (negative + eps), infinite without negative tokens | the lower bound | the authors' recipe for verl |

A share s is the quotient s / (1 - s): 0.4 is a quotient of 2/3, and a quotient of 0.5 is a share of 1/3.

Raising the lower bound can only *increase* the negative side, so it never brings the target nearer, in either form. What it does is to
take the gradient away from negative tokens that have already become unlikely (r < low). In the released form, an unmet target therefore
always drives the lower bound to its end before the upper one moves; in the paper's form the lower bound moves only when the upper one
could not reach the target, and then runs to its end. A dual clip is not part of the measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_sum, require_same_shape, select

Form = Literal["paper", "released"]
FORMS: tuple[Form, ...] = ("paper", "released")
ROUNDING = 1e-9
"""Slack of comparisons between bounds, whose steps are no binary fractions."""
EPS = 1e-8
"""Added to the negative side in the released form."""


@dataclass(frozen=True)
class Range:
    """A bound of the ratio (not a distance from 1), from its start to its end."""

    start: float
    end: float
    step: float

    def values(self, *, reach_end: bool = False) -> list[float]:
        """Every value the bound can take, rising.

        Args:
            reach_end: take a last shorter step when whole ones do not hit the end (released form); the paper stops before it.
        """
        if self.step <= 0 or self.end <= self.start:
            return [self.start]
        count = math.floor((self.end - self.start) / self.step + ROUNDING)
        found = [self.start + k * self.step for k in range(count + 1)]
        return [*found, self.end] if reach_end and found[-1] < self.end - ROUNDING else found


@dataclass(frozen=True)
class SearchedBounds:
    """The window that was found."""

    low: float
    high: float
    balance: float
    """The form's measure with this window."""
    balance_at_start: float
    """The same before the search."""
    share: float
    """Positive share of the (weighted) surrogate with this window, whatever the form."""
    share_at_start: float
    moves: int
    """Steps that were taken."""


def surrogate_sides(
    ratio: Tensor, advantage: Tensor, *, low: float, high: float, mask: Tensor | None = None, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The positive and the negative side of the clipped surrogate, both at least 0: float64 scalars.

    Args:
        ratio, advantage: one shape.
        low, high: bounds of the ratio.
        mask: bool, the same shape; masked entries may be NaN.
        weight: factor of every entry, the same shape.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(ratio=ratio, advantage=advantage, mask=mask, weight=weight)
    worth = (advantage if weight is None else advantage * weight).detach().double()
    seen = ratio.detach().double()  # in double precision the order of the rows changes no digit that is shown
    return masked_sum(seen.clamp(max=high) * worth.clamp(min=0), mask), masked_sum(seen.clamp(min=low) * (-worth).clamp(min=0), mask)


def search_bounds(
    ratio: Tensor,
    advantage: Tensor,
    *,
    low: Range,
    high: Range,
    target: float,
    form: Form = "paper",
    mask: Tensor | None = None,
    sampler_logp: Tensor | None = None,
) -> SearchedBounds:
    """The bounds of one gradient step; see the table of the module.

    Statistics of all entries given: call it once with all tokens of a gradient step, never per micro-batch.

    Args:
        ratio: learner over behaviour policy, any shape; a constant.
        advantage: the same shape.
        low, high: where the bounds may go.
        target: of the form's measure.
        form: the paper's or the released code's.
        mask: bool, the same shape; masked entries may be NaN.
        sampler_logp: log-prob under the behaviour policy, the paper's weight; required by that form, not used by the other.

    Returns:
        The window, whether or not it reaches the target. Without a negative side nothing is searched for.

    Raises:
        RheostatError: different shapes, an unknown form, or no ``sampler_logp`` where the form needs it.
    """
    if form not in FORMS:
        raise RheostatError(f"Unknown form of the search {form!r}: one of {', '.join(FORMS)}.")
    if form == "paper" and sampler_logp is None:
        raise RheostatError("The paper's search weighs tokens by their probability under the behaviour policy: give sampler_logp.")
    weight = None
    if form == "paper" and sampler_logp is not None:
        require_same_shape(ratio=ratio, sampler_logp=sampler_logp)
        weight = select(sampler_logp, mask).detach().double().exp()

    def sides(window: tuple[float, float]) -> tuple[float, float]:
        positive, negative = surrogate_sides(ratio, advantage, low=window[0], high=window[1], mask=mask, weight=weight)
        return positive.item(), negative.item()

    windows = _windows(low, high, form)
    window = next(windows)
    first = found = sides(window)
    moves = 0
    while _balance(*found, form) < target:
        following = next(windows, None)
        if following is None:
            break
        window, moves = following, moves + 1
        found = sides(window)
    return SearchedBounds(*window, _balance(*found, form), _balance(*first, form), _share(*found), _share(*first), moves)


def _windows(low: Range, high: Range, form: Form) -> Iterator[tuple[float, float]]:
    """Every window in the order of the search."""
    lows, highs = low.values(reach_end=form == "released"), high.values(reach_end=form == "released")
    if form == "released":
        yield from ((bound, highs[0]) for bound in lows)
        yield from ((lows[-1], bound) for bound in highs[1:])
    else:
        yield from ((lows[0], bound) for bound in highs)
        yield from ((bound, highs[-1]) for bound in lows[1:])


def _balance(positive: float, negative: float, form: Form) -> float:
    if form == "paper":
        return _share(positive, negative)
    return positive / (negative + EPS) if negative > 0 else math.inf


def _share(positive: float, negative: float) -> float:
    return positive / (positive + negative) if negative > 0 else 1.0
