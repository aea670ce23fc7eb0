"""The searched clip window: when it moves, in which order, how far, and that it never depends on what does not matter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.clipping import Clip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.searched_bounds import FORMS, Form, Range, SearchedBounds, search_bounds, surrogate_sides

LOW, HIGH = Range(0.6, 0.9, 0.02), Range(1.2, 3.0, 0.05)
SEEDS = st.integers(0, 2**31)
FORM = st.sampled_from(FORMS)


def batch(seed: int, *, tilt: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ratio, advantage, sampler's log-prob, mask; ``tilt`` shifts the advantages."""
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 6)
    logp = torch.log_softmax(torch.randn(*shape, 5, generator=generator), -1)[..., 0]
    ratio = (0.6 * torch.randn(shape, generator=generator)).exp()
    advantage = torch.randn(shape, generator=generator) + tilt
    return ratio, advantage, logp, torch.rand(shape, generator=generator) < 0.8


def found(seed: int, form: Form, target: float, *, low: Range = LOW, high: Range = HIGH, tilt: float = 0.0) -> SearchedBounds:
    ratio, advantage, logp, mask = batch(seed, tilt=tilt)
    return search_bounds(ratio, advantage, low=low, high=high, target=target, form=form, mask=mask, sampler_logp=logp)


@given(SEEDS, FORM, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_bounds_rise_with_the_target(seed: int, form: Form, a: float, b: float) -> None:
    one, other = found(seed, form, min(a, b)), found(seed, form, max(a, b))
    assert LOW.start <= one.low <= other.low <= LOW.end + 1e-9 and HIGH.start <= one.high <= other.high <= HIGH.end + 1e-9
    assert one.moves <= other.moves and one.share_at_start == other.share_at_start


@given(SEEDS, FORM, st.floats(0.0, 1.0))
def test_order_of_the_search(seed: int, form: Form, target: float) -> None:
    """Upper first in the paper, lower first in the released code; a bound moves only when the one before it is at its end."""
    bounds = found(seed, form, target)
    first_at_end = math.isclose(bounds.high, HIGH.end) if form == "paper" else math.isclose(bounds.low, LOW.end)
    second_moved = bounds.low > LOW.start if form == "paper" else bounds.high > HIGH.start
    assert first_at_end or not second_moved
    assert bounds.moves == round((bounds.low - LOW.start) / LOW.step) + round((bounds.high - HIGH.start) / HIGH.step)


@given(SEEDS, FORM)
def test_the_lower_bound_never_helps(seed: int, form: Form) -> None:
    ratio, advantage, logp, mask = batch(seed)
    sides = [surrogate_sides(ratio, advantage, low=low, high=1.2, mask=mask, weight=logp.exp()) for low in LOW.values()]
    positive, negative = ([side[i].item() for side in sides] for i in (0, 1))
    assert len(set(positive)) == 1 and negative == sorted(negative)
    bounds = found(seed, form, 1.0, high=Range(1.2, 1.2, 0.05))
    assert bounds.share <= bounds.share_at_start and (bounds.moves in (0, 15))


@given(SEEDS, FORM)
def test_the_sides_are_the_clipped_surrogate(seed: int, form: Form) -> None:
    ratio, advantage, _, mask = batch(seed)
    bounds = found(seed, form, 0.6)
    positive, negative = surrogate_sides(ratio, advantage, low=bounds.low, high=bounds.high, mask=mask)
    loss = Clip(1 - bounds.low, bounds.high - 1).loss(ratio, advantage, ratio)[mask].double()
    assert (negative - positive).item() == pytest.approx(loss.sum().item(), abs=1e-5)
    assert (negative + positive).item() == pytest.approx(loss.abs().sum().item(), abs=1e-5)


@given(SEEDS, FORM)
def test_a_target_that_is_met_leaves_the_plain_clip(seed: int, form: Form) -> None:
    ratio, advantage, logp, mask = batch(seed)
    bounds = search_bounds(ratio, advantage, low=LOW, high=HIGH, target=0.0, form=form, mask=mask, sampler_logp=logp)
    assert (bounds.low, bounds.high, bounds.moves) == (0.6, 1.2, 0) and bounds.share == bounds.share_at_start
    ours, plain = (
        policy_gradient(logp + ratio.log(), advantage, denominator_logp=logp, mask=mask, clip=clip).loss
        for clip in (Clip(1 - bounds.low, bounds.high - 1), Clip(0.4, 0.2))
    )
    torch.testing.assert_close(ours, plain)


@given(SEEDS, FORM)
def test_rows_padding_and_scale_do_not_matter(seed: int, form: Form) -> None:
    ratio, advantage, logp, mask = batch(seed)
    expected = found(seed, form, 0.55)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    wide = [torch.nn.functional.pad(x[order], (1, 2), value=float("nan")) for x in (ratio, advantage, logp)]
    kept = torch.nn.functional.pad(mask[order], (1, 2))
    bounds = search_bounds(wide[0], 3 * wide[1], low=LOW, high=HIGH, target=0.55, form=form, mask=kept, sampler_logp=wide[2])
    assert (bounds.low, bounds.high, bounds.moves) == (expected.low, expected.high, expected.moves)
    assert bounds.share == pytest.approx(expected.share)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nothing_negative_is_no_search(form: Form, value: float) -> None:
    ratio, advantage, logp, _ = batch(0)
    bounds = search_bounds(ratio, advantage.abs() * value, low=LOW, high=HIGH, target=1.0, form=form, sampler_logp=logp)
    assert bounds.moves == 0 and bounds.share == 1.0 and bounds.balance == (math.inf if form == "released" else 1.0)


def test_targets_of_the_two_forms() -> None:
    """A share s is the quotient s / (1 - s)."""
    ratio, advantage, logp, mask = batch(5, tilt=-0.2)
    common = {"low": Range(0.6, 0.6, 0.0), "high": HIGH, "mask": mask}
    share = search_bounds(ratio, advantage, target=0.5, form="paper", sampler_logp=torch.zeros_like(logp), **common)
    quotient = search_bounds(ratio, advantage, target=1.0, form="released", **common)
    assert 1.2 < share.high == quotient.high < 3.0
    assert quotient.balance == pytest.approx(share.balance / (1 - share.balance))


def test_ranges() -> None:
    assert Range(0.6, 0.9, 0.02).values()[-1] == pytest.approx(0.9) and len(Range(0.6, 0.9, 0.02).values()) == 16
    assert Range(0.6, 0.75, 0.1).values() == [0.6, 0.7] and Range(0.6, 0.75, 0.1).values(reach_end=True) == [0.6, 0.7, 0.75]
    assert Range(1.2, 3.0, 0.0).values() == Range(1.2, 1.2, 0.1).values() == [1.2]


def test_refusals() -> None:
    ratio, advantage, logp, mask = batch(0)
    with pytest.raises(RheostatError, match="give sampler_logp"):
        search_bounds(ratio, advantage, low=LOW, high=HIGH, target=0.4)
    with pytest.raises(RheostatError, match="Unknown form of the search 'other'"):
        search_bounds(ratio, advantage, low=LOW, high=HIGH, target=0.4, form="other", sampler_logp=logp)  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="must have one shape"):
        search_bounds(ratio, advantage[:2], low=LOW, high=HIGH, target=0.4, form="released", mask=mask)
