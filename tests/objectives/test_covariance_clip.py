"""Clip-Cov and KL-Cov: which tokens are held back, how many, and what that does to the entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.clipping import Clip
from rheostat.objectives.covariance_clip import CHOSEN, ClipCov, HeldNear, KLCov, covariance
from rheostat.parts import Batch
from rheostat.streams import Streams
from rheostat.trajectories import Trajectories

SEEDS = st.integers(0, 2**31)


@dataclass
class Chance:
    streams: Streams = field(default_factory=lambda: Streams(0))


def step(seed: int) -> tuple[Tensor, Batch, Tensor]:
    """Log-probabilities ``[4, 6]`` of a gradient step, its rows, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    logp = torch.log_softmax(2 * torch.randn(4, 6, 5, generator=generator), -1)[..., 0]
    mask = torch.rand(4, 6, generator=generator) < 0.8
    mask[0, 0] = True
    nothing = torch.zeros(4, 6)
    rows = Trajectories(
        action=nothing, mask=mask, reward=nothing, terminated=mask, truncated=mask, sampler_logp=logp, batch_size=[4, 6],
        advantage=torch.randn(4, 6, generator=generator), learner_logp=logp - 0.5 * torch.randn(4, 6, generator=generator),
    )  # fmt: skip
    return logp, Batch(rows), mask


@given(SEEDS)
def test_its_mean_is_the_covariance(seed: int) -> None:
    logp, batch, mask = step(seed)
    found = covariance(logp, batch.rows.advantage, mask)[mask].mean()
    expected = torch.cov(torch.stack([logp[mask], batch.rows.advantage[mask]]), correction=0)[0, 1]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@given(SEEDS, st.floats(0.01, 1))
def test_kl_cov_holds_the_largest(seed: int, share: float) -> None:
    logp, batch, mask = step(seed)
    held = KLCov(share).begin(Chance(), logp, batch, mask).columns[CHOSEN]
    value = covariance(logp, batch.rows.advantage, mask)
    assert int(held.sum()) == max(1, math.floor(share * int(mask.sum()))) and not bool((held & ~mask).any())
    rest = value[mask & ~held]
    assert not len(rest) or value[held].min() >= rest.max()


@given(SEEDS, st.floats(0.01, 1), st.floats(-1, 0.5), st.floats(0.5, 2))
def test_clip_cov_draws_among_those_between(seed: int, share: float, least: float, most: float) -> None:
    logp, batch, mask = step(seed)
    if least >= most:
        return
    clip = ClipCov(0.2, 0.2, share, least, most)
    cut = clip.begin(Chance(), logp, batch, mask).columns[CHOSEN]
    value = covariance(logp, batch.rows.advantage, mask)
    clipped = Clip(0.2, 0.2).clipped((logp - batch.rows.learner_logp).exp(), batch.rows.advantage)
    able = mask & (value > least) & (value < most) & ~clipped
    assert not bool((cut & ~able).any())
    assert int(cut.sum()) == min(max(1, math.floor(share * int(mask.sum()))), int(able.sum()))


def test_the_draw_is_uniform_and_goes_on_where_it_was() -> None:
    logp, batch, mask = step(1)
    clip, chance = ClipCov(9.0, 9.0, 1e-6, -9.0, 9.0), Chance()
    counts = torch.stack([clip.begin(chance, logp, batch, mask).columns[CHOSEN] for _ in range(2000)]).float().mean(0)
    assert (counts[mask] - 1 / int(mask.sum())).abs().max() < 0.02 and not bool(counts[~mask].any())
    state = chance.streams.state_dict()
    after = clip.begin(chance, logp, batch, mask).columns[CHOSEN]
    again = Chance()
    again.streams.load_state_dict(state)
    assert torch.equal(clip.begin(again, logp, batch, mask).columns[CHOSEN], after)


@pytest.mark.parametrize("clip", [ClipCov(share=0.3, least=0.0), KLCov(share=0.3)], ids=repr)
def test_held_back_tokens_keep_the_entropy_up(clip: Any) -> None:
    """One context, every action once with its probability as weight: without the held ones the entropy falls less."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0], dtype=torch.float64)
    worth = torch.tensor([1.0, 0.3, -0.2, -0.5, -1.0], dtype=torch.float64)
    logp = logits.log_softmax(0)
    mask = torch.ones(1, 5, dtype=torch.bool)
    nothing = torch.zeros(1, 5)
    rows = Trajectories(
        action=nothing, mask=mask, reward=nothing, terminated=mask, truncated=mask, sampler_logp=logp[None], advantage=worth[None],
        learner_logp=logp[None], batch_size=[1, 5],
    )  # fmt: skip
    held = clip.begin(Chance(), logp[None], Batch(rows), mask).columns[CHOSEN][0]
    p = logp.exp()

    def slope(kept: Tensor) -> float:
        """First-order change of the entropy by a natural-gradient step on some actions' advantages."""
        centred = logp - (p * logp).sum()
        return float(-(p * centred * worth * kept).sum())

    assert bool(held.any()) and slope(~held) > slope(torch.ones(5))


def test_a_held_token_pays_for_either_direction() -> None:
    rule = HeldNear(torch.tensor([True, True, False]), 2.0)
    logp = torch.tensor([0.1, -0.1, 0.1], requires_grad=True)
    loss = rule.loss(logp.exp(), torch.zeros(3), logp)
    (slope,) = torch.autograd.grad(loss.sum(), logp)
    for found in (slope, rule.dloss_dlogp(logp.exp().detach(), torch.zeros(3))):
        torch.testing.assert_close(found, torch.tensor([2.0, -2.0, 0.0]))


def test_rounding_is_no_move() -> None:
    rule = HeldNear(torch.ones(2, dtype=torch.bool), 2.0)
    logp = torch.tensor([3e-7, -3e-7], requires_grad=True)
    (slope,) = torch.autograd.grad(rule.loss(logp.exp(), torch.zeros(2), logp).sum(), logp)
    assert not bool(slope.any()) and not bool(rule.dloss_dlogp(logp.exp().detach(), torch.zeros(2)).any())


def test_bounds_that_hold_nothing_are_refused() -> None:
    with pytest.raises(RheostatError, match=r"covariance_low is 5\.0 and covariance_high 5\.0: no token lies between them"):
        ClipCov(least=5.0)
