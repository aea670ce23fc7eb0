"""Diverse behaviour cloning: what each kind moves, and the laws of all losses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.diverse_cloning import diverse_cloning_loss, likeliest_other
from rheostat.policies.control.distributions import Gaussian

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, members: int = 3, rows: int = 6, dimensions: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean, action = (0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((members, rows, 2), (rows, 2)))
    log_std = -1 + 0.2 * torch.randn(members, rows, dimensions, generator=generator, dtype=torch.float64)
    return mean.requires_grad_(), log_std.requires_grad_(), action


def loss(mean: Tensor, log_std: Tensor, action: Tensor, **options: object) -> Tensor:
    return diverse_cloning_loss(Gaussian(mean, log_std).log_prob(action), mean, log_std, **options)  # type: ignore[arg-type]


def test_the_likeliest_other_is_never_oneself() -> None:
    logp = torch.tensor([[0.0, 3.0], [1.0, 2.0], [-1.0, -9.0]])
    assert likeliest_other(logp).tolist() == [[1, 1], [0, 0], [1, 0]]
    with pytest.raises(RheostatError, match="at least two"):
        likeliest_other(logp[:1])


@given(seed=seeds)
def test_the_heuristic_only_rescales_cloning(seed: int) -> None:
    mean, log_std, action = draw(seed)
    plain = torch.autograd.grad(loss(mean, log_std, action, alpha=0.0).sum(), (mean, log_std))
    rescaled = torch.autograd.grad(loss(mean, log_std, action, alpha=0.3, kind="heuristic").sum(), (mean, log_std))
    for a, b in zip(plain, rescaled, strict=True):
        torch.testing.assert_close(1.3 * a, b)


@given(seed=seeds)
def test_the_divergence_pushes_members_apart(seed: int) -> None:
    """One step along the diversity term alone raises every member's divergence from its likeliest other."""
    mean, log_std, action = draw(seed)
    term = loss(mean, log_std, action, alpha=1.0) - loss(mean, log_std, action, alpha=0.0)
    (gradient,) = torch.autograd.grad(term.sum(), mean)
    other = likeliest_other(Gaussian(mean, log_std).log_prob(action))
    away = mean.detach() - mean.detach()[other, torch.arange(6)]
    assert ((-gradient * away).sum(-1) >= 0).all()  # downhill is away from the other's mean


@given(seed=seeds, alpha=st.sampled_from([0.0, 0.1]), kind=st.sampled_from(["distribution", "heuristic"]))
def test_members_share_nothing(seed: int, alpha: float, kind: str) -> None:
    mean, log_std, action = draw(seed)
    gradient = torch.autograd.grad(loss(mean, log_std, action, alpha=alpha, kind=kind)[0], mean)[0]
    assert (gradient[1:] == 0).all() and (gradient[0] != 0).any()


@given(seed=seeds, kind=st.sampled_from(["distribution", "heuristic"]), cut=st.integers(1, 5))
def test_order_of_rows_and_members_does_not_matter(seed: int, kind: str, cut: int) -> None:
    mean, log_std, action = draw(seed)
    whole = loss(mean, log_std, action, alpha=0.1, kind=kind)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(loss(mean[:, order], log_std[:, order], action[order], alpha=0.1, kind=kind), whole)
    parts = [loss(mean[:, rows], log_std[:, rows], action[rows], alpha=0.1, kind=kind) for rows in (slice(0, cut), slice(cut, None))]
    torch.testing.assert_close((cut * parts[0] + (6 - cut) * parts[1]) / 6, whole)
    torch.testing.assert_close(loss(mean.flip(0), log_std.flip(0), action, alpha=0.1, kind=kind).flip(0), whole)


def test_dimensions_by_sum_count_as_often_as_there_are() -> None:
    mean, log_std, action = draw(3)
    plain = loss(mean, log_std, action, alpha=0.0)
    by_mean, by_sum = (loss(mean, log_std, action, alpha=0.1, dimensions=how) - plain for how in ("mean", "sum"))
    torch.testing.assert_close(2 * by_mean, by_sum)


def test_a_single_member_is_plain_cloning() -> None:
    mean, log_std, action = draw(4, members=1)
    torch.testing.assert_close(loss(mean, log_std, action, alpha=0.7), -Gaussian(mean, log_std).log_prob(action).mean(-1))


def test_mistakes_are_refused() -> None:
    mean, log_std, action = draw(5)
    with pytest.raises(RheostatError, match=r"logp \[6\]"):
        diverse_cloning_loss(torch.zeros(6), mean, log_std, alpha=0.1)
    for options in ({"kind": "heuristics"}, {"dimensions": "max"}):
        with pytest.raises(RheostatError, match="Unknown"):
            loss(mean, log_std, action, alpha=0.1, **options)
