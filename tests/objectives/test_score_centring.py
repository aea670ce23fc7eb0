"""Score centring: the published residual form, a score without a mean, and masked entries that may be anything."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.objectives.clipping import Clip, ClipRule, DetachedClip, LogClip, NoClip
from rheostat.objectives.policy_gradient import policy_terms
from rheostat.objectives.score_centring import centring
from rheostat.objectives.weights import importance_weight
from rheostat.policies.language.chunked_logprobs import of_head

SEEDS = st.integers(0, 2**31)
CLIPS: list[ClipRule] = [NoClip(), Clip(0.2, 0.28), Clip(0.1, 0.1, dual=1.5), DetachedClip(None, 0.3), LogClip(0.2, 0.2)]
VOCABULARY = 6


def policies(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits ``[2, 3, V]`` of a learner, the learner at the start of the update, and a sampler."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(2, 3, VOCABULARY, generator=generator, dtype=torch.float64)
    near, far = (width * torch.randn(base.shape, generator=generator, dtype=torch.float64) for width in (0.3, 0.6))
    return base + near, base, base + far


def at_head(logits: Tensor, head: Tensor) -> Tensor:
    return of_head(logits.flatten(0, 1), head.flatten(0, 1)).view(*logits.shape[:2], -1)


@pytest.mark.parametrize("cap", [None, 1.2, math.inf])
@given(seed=SEEDS, tokens=st.integers(1, VOCABULARY - 1))
def test_it_is_the_published_residual(seed: int, tokens: int, cap: float | None) -> None:
    """sum over the head of sg[q f(p / q) - alpha p] log p with alpha = rho f(1 / rho), times -A, has the same gradient in the logits."""
    _, start, sampler = policies(seed)
    learner = start.clone().requires_grad_()
    advantage, mask = torch.randn(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)
    head = sampler.topk(tokens, -1).indices
    ours, _ = centring(at_head(learner, head), at_head(sampler, head), advantage, mask=mask, clip=DetachedClip(), cap=cap)
    (mine,) = torch.autograd.grad(ours.sum(), learner)

    p, q = (logits.log_softmax(-1).gather(-1, head) for logits in (learner, sampler))
    ratio = (p - q).exp().detach()
    rho = (1 - q.exp().sum(-1, keepdim=True)) / (1 - p.exp().sum(-1, keepdim=True)).detach()
    f = (lambda r: torch.ones_like(r)) if cap is None else (lambda r: r.clamp(max=cap))
    coefficient = q.exp() * f(ratio) - rho * f(1 / rho) * p.exp().detach()
    published = -advantage * (coefficient * p).sum(-1)
    (theirs,) = torch.autograd.grad(published.sum(), learner)
    torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("clip", CLIPS, ids=repr)
@pytest.mark.parametrize("cap", [None, 1.2])
@given(seed=SEEDS)
def test_over_the_whole_vocabulary_the_score_has_no_mean(seed: int, clip: ClipRule, cap: float | None) -> None:
    """Every token in turn as the sampled one, each as often as the sampler draws it, for an advantage of either sign."""
    learner, start, sampler = policies(seed)
    learner.requires_grad_()
    everything = torch.arange(VOCABULARY).expand_as(sampler)
    mask = torch.ones(2, 3, dtype=torch.bool)
    logp, old, q = (at_head(logits, everything) for logits in (learner, start, sampler))
    for sign in (1.0, -1.0):
        advantage = torch.full((2, 3), sign, dtype=torch.float64)
        mean, _ = centring(logp, q, advantage, mask=mask, clip=clip, old_head=old, cap=cap)
        total = -mean.sum()
        for token in range(VOCABULARY):
            weight = None if cap is None else importance_weight(old[..., token].detach(), q[..., token], cap=cap)
            terms = policy_terms(logp[..., token], advantage, denominator_logp=old[..., token], clip=clip, weight=weight)
            total = total + (q[..., token].exp() * terms.loss).sum()
        (gradient,) = torch.autograd.grad(total, learner, retain_graph=True)
        assert gradient.abs().max() < 1e-12


@given(SEEDS)
def test_equal_policies_need_nothing(seed: int) -> None:
    learner, start, _ = policies(seed)
    learner = start.clone().requires_grad_()
    head = start.topk(3, -1).indices
    mean, distance = centring(
        at_head(learner, head), at_head(start, head), torch.ones(2, 3), mask=torch.ones(2, 3, dtype=torch.bool), clip=Clip()
    )
    (gradient,) = torch.autograd.grad(mean.sum(), learner)
    assert gradient.abs().max() < 1e-12 and distance.abs().max() < 1e-12


def test_masked_entries_may_be_anything() -> None:
    learner, start, sampler = policies(0)
    learner.requires_grad_()
    head = sampler.topk(2, -1).indices
    mask = torch.tensor([[True, False, True], [False, True, True]])
    hole = ~mask[..., None]
    clean = centring(at_head(learner, head), at_head(sampler, head), torch.ones(2, 3), mask=mask, clip=Clip())
    holes = centring(
        at_head(learner, head).masked_fill(hole, math.nan),
        at_head(sampler, head).masked_fill(hole, math.nan),
        torch.ones(2, 3).masked_fill(~mask, math.nan),
        mask=mask,
        clip=Clip(),
    )
    for one, other in zip(clean, holes, strict=True):
        assert torch.equal(one, other)
    (gradient,) = torch.autograd.grad(holes[0].sum(), learner)
    assert bool(gradient.isfinite().all()) and not bool(gradient[~mask].any()) and bool(gradient[mask].any())
    assert start.shape == learner.shape


def test_the_other_tokens_are_one() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64)
    head = logits.topk(3, -1).indices
    found = of_head(logits, head)
    p = logits.softmax(-1)
    torch.testing.assert_close(found[:, :3].exp(), p.gather(-1, head))
    torch.testing.assert_close(found[:, 3].exp(), 1 - p.gather(-1, head).sum(-1))
    assert of_head(logits, torch.arange(7).expand(5, 7)).shape == (5, 7)
