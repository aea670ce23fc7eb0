"""KL-Convex and the clip window around the current policy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.clipping import Clip, NoClip
from rheostat.objectives.kl import categorical_kl, kl_estimate
from rheostat.objectives.kl_convex import convex_share, exact_kl_convex, kl_convex
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.ratio import LOG_CLAMP, window_centre

SEEDS = st.integers(0, 2**31)


def drawn(seed: int, count: int, shape: tuple[int, ...] = (4, 6)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


# --- the schedule ------------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 60), st.integers(1, 20), st.floats(0, 1), st.floats(0, 1))
def test_schedule_falls_to_its_floor(step: int, start: int, interval: int, drop: float, floor: float) -> None:
    share = convex_share(step, start=start, interval=interval, drop=drop, floor=floor)
    assert floor <= share <= 1 and share >= convex_share(step + 1, start=start, interval=interval, drop=drop, floor=floor)
    assert share == 1 or step > start


def test_schedule_of_the_paper() -> None:
    assert [round(convex_share(step), 9) for step in (1, 50, 51, 60, 61, 90, 91, 10_000)] == [1, 1, 0.9, 0.9, 0.8, 0.6, 0.5, 0.5]
    for bad in ({"interval": 0}, {"drop": -0.1}, {"floor": 1.5}):
        with pytest.raises(RheostatError, match="the drop must be at least 0"):
            convex_share(1, **bad)


# --- the penalty -------------------------------------------------------------------------------------------------------------------------


@given(SEEDS, st.floats(0, 1))
def test_penalty_is_the_mixture_of_its_ends(seed: int, share: float) -> None:
    logp, base, previous = drawn(seed, 3)
    ends = kl_estimate(logp, base), kl_estimate(logp, previous)
    torch.testing.assert_close(kl_convex(logp, base, previous, share=share), share * ends[0] + (1 - share) * ends[1])
    assert torch.equal(kl_convex(logp, base, None, share=1.0), ends[0])


@given(SEEDS, st.floats(0, 1))
def test_exact_penalty(seed: int, share: float) -> None:
    logits, base, previous = (x.requires_grad_() for x in drawn(seed, 3, (3, 5)))
    penalty = exact_kl_convex(logits, base, previous, share=share)
    expected = share * categorical_kl(logits, base) + (1 - share) * categorical_kl(logits, previous)
    torch.testing.assert_close(penalty, expected)
    penalty.sum().backward()
    assert base.grad is None and previous.grad is None and logits.grad is not None
    assert torch.allclose(exact_kl_convex(base, base, base, share=share), torch.zeros(3), atol=1e-6)


def test_penalty_refusals() -> None:
    logp, base = drawn(0, 2)
    with pytest.raises(RheostatError, match=r"The share of the base model is 0\.9: the rest needs previous_logp"):
        kl_convex(logp, base, None, share=0.9)
    with pytest.raises(RheostatError, match=r"The share of the base model is 1\.5"):
        kl_convex(logp, base, base, share=1.5)
    with pytest.raises(RheostatError, match=r"The share of the base model is -0\.5"):
        exact_kl_convex(logp, base, base, share=-0.5)


# --- the window --------------------------------------------------------------------------------------------------------------------------


def gradient(logp: Tensor, advantage: Tensor, behaviour: Tensor, clip: Clip | NoClip) -> tuple[Tensor, Tensor]:
    leaf = logp.clone().requires_grad_()
    loss = policy_gradient(leaf, advantage, denominator_logp=behaviour, clip=clip, log_clamp=LOG_CLAMP).loss
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@given(SEEDS)
def test_fresh_rows_are_ppo_bit_for_bit(seed: int) -> None:
    logp, current, advantage = drawn(seed, 3)
    centre = window_centre(current, current)
    assert torch.equal(centre, torch.ones_like(centre))
    for ours, ppo in zip(
        gradient(logp, advantage, current, Clip(0.2, 0.2, centre=centre)), gradient(logp, advantage, current, Clip(0.2, 0.2)), strict=True
    ):
        assert torch.equal(ours, ppo)


@given(SEEDS)
def test_nothing_is_clipped_before_the_policy_moves(seed: int) -> None:
    """At the start of the step the gradient is the importance-weighted one, however stale the rows; around 1 it is not."""
    current, behaviour, advantage = drawn(seed, 3)
    behaviour = behaviour * 3
    free = gradient(current, advantage, behaviour, NoClip())[1]
    assert torch.equal(gradient(current, advantage, behaviour, Clip(0.2, 0.2, centre=window_centre(current, behaviour)))[1], free)
    assert not torch.equal(gradient(current, advantage, behaviour, Clip(0.2, 0.2))[1], free)


def test_the_window_is_additive_around_the_centre() -> None:
    """-r A is kept up to c + eps where A > 0 and down to c - eps where A < 0; below eps the lower edge never binds."""
    behaviour = torch.zeros(4)
    current = torch.tensor([2.0, 2.0, 0.1, 2.0]).log()
    for moved, sign, kept in ((0.19, 1, True), (0.21, 1, False), (-0.19, -1, True), (-0.21, -1, False), (0.5, -1, True)):
        logp = (current.exp() + moved).clamp(min=1e-3).log()
        found = gradient(logp, torch.full((4,), float(sign)), behaviour, Clip(0.2, 0.2, centre=window_centre(current, behaviour)))[1]
        expected = torch.full((4,), kept)
        if (moved, sign) == (-0.21, -1):
            expected[2] = True  # the lower edge 0.1 - 0.2 is negative
        assert torch.equal(found != 0, expected)


def test_masked_centres_are_one() -> None:
    mask = torch.tensor([[True, False]])
    centre = window_centre(torch.tensor([[0.5, float("nan")]]), torch.tensor([[0.0, float("nan")]]), mask)
    assert centre[0, 1] == 1 and centre[0, 0] == pytest.approx(1.6487213)
    assert window_centre(torch.tensor([50.0]), torch.tensor([0.0])).item() == pytest.approx(4.8516520e8)
