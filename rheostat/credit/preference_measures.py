"""Measures of preferences: win rates, calibration, and the biases of reward models and judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rheostat.masking import require_same_shape

BINS = 10
"""Of confidences, between 1/2 and 1."""
Judge = Callable[[Sequence[Any], Sequence[str], Sequence[str]], Tensor]
"""From prompts, first answers and second answers to the probabilities ``[N]`` that the first is the better one; NaN where it cannot say."""


def win_rate(mine: Tensor, theirs: Tensor) -> float:
    """The share of rows on which one reward is the higher one; a tie is half a win, and rows without both rewards (NaN) are left out.

    Args:
        mine, theirs: ``[N]`` rewards of two answers to the same prompt.

    Returns:
        In [0, 1]; NaN where no row has both.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(mine=mine, theirs=theirs)
    known = ~(mine.isnan() | theirs.isnan())
    return ((mine > theirs).float() + 0.5 * (mine == theirs).float())[known].mean().item()


class Judged(NamedTuple):
    """What a judge of pairs said of two policies."""

    win_rate: float
    """Share of prompts on which the first policy's answer is the better one, in both orders together; a tie is half a win."""
    position_bias: float
    """Mean probability of whatever stands first, less 1/2: 0 for a judge that does not see the order."""
    inconsistent: float
    """Share of prompts on which the judge changes its mind with the order."""


def both_orders(judge: Judge, prompts: Sequence[Any], mine: Sequence[str], theirs: Sequence[str]) -> tuple[Tensor, Tensor]:
    """A judge's probabilities ``[N]`` that ours is the better answer where it stands first, and where it stands second.

    Args:
        judge: see :data:`Judge`.
        prompts, mine, theirs: ``N`` each.
    """
    return judge(prompts, mine, theirs), 1 - judge(prompts, theirs, mine)


def judged(judge: Judge, prompts: Sequence[Any], mine: Sequence[str], theirs: Sequence[str]) -> Judged:
    """Ask a judge about every pair in both orders, and average: a preference for a position cancels. What it cannot say is left out.

    Args:
        judge: see :data:`Judge`.
        prompts, mine, theirs: ``N`` each.
    """
    first, second = both_orders(judge, prompts, mine, theirs)
    known = ~(first + second).isnan()
    first, second = first[known], second[known]
    both = 0.5 * (first + second)
    wins = (both > 0.5).float() + 0.5 * (both == 0.5).float()
    changed = (first > 0.5) != (second > 0.5)
    return Judged(wins.mean().item(), (0.5 * (first - second)).mean().item(), changed.float().mean().item())


def calibration_error(probability: Tensor, bins: int = BINS) -> float:
    """Expected calibration error of a model on pairs of which the first answer was preferred (Guo et al. 2017, arXiv 1706.04599).

    The answer that the model prefers has a confidence between 1/2 and 1; in bins of confidence, the distance between the mean confidence
    and the share of pairs on which the annotator agrees.

    Args:
        probability: ``[P]``, of the chosen answer.
        bins: of equal width.

    Returns:
        In [0, 1]; NaN without a pair.
    """
    confidence = torch.maximum(probability, 1 - probability)
    right = (probability > 0.5).to(confidence.dtype)
    place = ((confidence - 0.5) * 2 * bins).long().clamp(0, bins - 1)
    gaps = torch.stack([(confidence - right)[place == index].sum().abs() for index in range(bins)])
    return (gaps.sum() / len(probability)).item() if len(probability) else float("nan")


def length_bias(chosen: Tensor, rejected: Tensor, chosen_length: Tensor, rejected_length: Tensor) -> dict[str, float]:
    """How a reward model's verdict on pairs goes with the lengths of their answers.

    Args:
        chosen, rejected: ``[P]`` rewards.
        chosen_length, rejected_length: ``[P]`` tokens.

    Returns:
        ``length_correlation`` of reward and length over all answers (0 where either is constant), and the share of pairs that are ranked
        as the annotator ranked them where the chosen answer is the longer one and where it is the shorter one; what no pair tells is left
        out.
    """
    reward, length = torch.cat([chosen, rejected]), torch.cat([chosen_length, rejected_length])
    found = {"length_correlation": correlation(reward, length)}
    right = (chosen > rejected).float()
    for name, those in (("longer", chosen_length > rejected_length), ("shorter", chosen_length < rejected_length)):
        if bool(those.any()):
            found[f"accuracy_{name}_chosen"] = right[those].mean().item()
    return found


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of two ``[N]``; 0 where either does not vary."""
    x, y = (each.double() - each.double().mean() for each in (x, y))
    scale = x.norm() * y.norm()
    return (x @ y / scale).clamp(-1, 1).item() if scale > 0 else 0.0
