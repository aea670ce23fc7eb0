"""Mixtures of Gaussians: PyTorch's numbers, derivatives by hand against autograd, estimates against sums, permutations, mixtures of one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as reference

from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.mixtures import MixtureOfGaussians, SquashedMixture
from rheostat.policies.control.squashed import SquashedGaussian
from tests.policies.test_distributions import gradient

ROWS, EXPERTS, DIMENSIONS = 5, 3, 2
WIDTH = EXPERTS + 2 * EXPERTS * DIMENSIONS
seeds = st.integers(0, 2**32 - 1)
Build = Callable[[Tensor], MixtureOfGaussians]


def mixture(at: Tensor) -> MixtureOfGaussians:
    logits, mean, log_std = at.split([EXPERTS, EXPERTS * DIMENSIONS, EXPERTS * DIMENSIONS], -1)
    return MixtureOfGaussians(logits, mean.reshape(-1, EXPERTS, DIMENSIONS), log_std.reshape(-1, EXPERTS, DIMENSIONS))


def shared(at: Tensor) -> MixtureOfGaussians:
    found = mixture(at)
    return MixtureOfGaussians(found.logits, found.mean, found.log_std[0])


def draw(seed: int, *, one_deviation: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    at = 0.8 * torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    if one_deviation:
        at[:, -EXPERTS * DIMENSIONS :] = at[0, -EXPERTS * DIMENSIONS :]
    return at.requires_grad_()


def squashed(seed: int) -> SquashedMixture:
    found = mixture(draw(seed).detach())
    return SquashedMixture(found.logits, found.mean, found.log_std)


def of_pytorch(found: MixtureOfGaussians) -> reference.MixtureSameFamily:
    experts = reference.Independent(reference.Normal(found.mean, found.log_std.expand_as(found.mean).exp()), 1)
    return reference.MixtureSameFamily(reference.Categorical(logits=found.logits), experts)


@pytest.mark.parametrize("build", [mixture, shared])
def test_numbers_agree_with_pytorch(build: Build) -> None:
    found = build(draw(0, one_deviation=True).detach())
    action = found.sample(torch.Generator().manual_seed(1))
    assert action.shape == (ROWS, DIMENSIONS)
    torch.testing.assert_close(found.log_prob(action), of_pytorch(found).log_prob(action))
    joint = found.log_weights + found.experts.log_prob(action.unsqueeze(1))
    torch.testing.assert_close(found.responsibilities(action), joint.exp() / joint.exp().sum(-1, keepdim=True))
    torch.testing.assert_close(found.sample_experts(torch.Generator().manual_seed(1)).shape, torch.Size((ROWS, EXPERTS, DIMENSIONS)))


@pytest.mark.parametrize("build", [mixture, shared])
def test_slopes_are_what_autograd_finds(build: Build) -> None:
    at, other = draw(0, one_deviation=True), draw(1).detach()
    here, there = build(at.detach()), mixture(other)
    action = here.sample(torch.Generator().manual_seed(2))
    log_prob, score = here.log_prob_and_gradient(action)
    torch.testing.assert_close(log_prob, here.log_prob(action))
    assert not score.requires_grad
    for row in range(ROWS):
        one = lambda d, row=row: d.log_prob(action[row : row + 1])  # noqa: E731
        torch.testing.assert_close(score[row], gradient(build, one, at)[row])
        one_kl = lambda d, row=row: d.kl(mixture(other[row : row + 1]))  # noqa: E731
        torch.testing.assert_close(here.kl_gradient(there)[row], gradient(build, one_kl, at)[row])
        reverse = lambda d, row=row: mixture(other[row : row + 1]).kl(d)  # noqa: E731
        torch.testing.assert_close(here.reverse_kl_gradient(there)[row], gradient(build, reverse, at)[row])
    torch.testing.assert_close(here.entropy_gradient(), gradient(build, lambda d: d.entropy(), at))


@given(seed=seeds)
def test_the_score_of_far_actions_is_finite(seed: int) -> None:
    """Where a sum of exponentials is 0 in double precision."""
    found = mixture(draw(seed).detach())
    action = 1e3 * torch.randn(ROWS, DIMENSIONS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    log_prob, score = found.log_prob_and_gradient(action)
    assert bool(log_prob.isfinite().all()) and bool(score.isfinite().all())
    torch.testing.assert_close(found.responsibilities(action).sum(-1), torch.ones(ROWS, dtype=torch.float64))


@pytest.mark.parametrize("build", [mixture, shared])
def test_parameters_define_the_distribution_and_carry_the_gradient(build: Build) -> None:
    at = draw(0, one_deviation=True)
    found = build(at)
    torch.testing.assert_close(found.parameters, at)
    assert found.parameters.requires_grad and not found.detach().parameters.requires_grad
    rows = torch.tensor([3, 0])
    torch.testing.assert_close(found[rows].parameters, at[rows])


@given(seed=seeds, order=st.permutations(range(EXPERTS)))
def test_the_order_of_the_experts_means_nothing(seed: int, order: list[int]) -> None:
    found = mixture(draw(seed).detach())
    other = MixtureOfGaussians(found.logits[:, order], found.mean[:, order], found.log_std[:, order])
    action = found.mode() + 0.5
    torch.testing.assert_close(other.log_prob(action), found.log_prob(action))
    torch.testing.assert_close(other.responsibilities(action), found.responsibilities(action)[:, order])
    torch.testing.assert_close(other.mode(), found.mode())
    torch.testing.assert_close(other.entropy(), found.entropy())
    torch.testing.assert_close(other.kl(found), torch.zeros(ROWS, dtype=torch.float64))


def test_a_mixture_of_one_is_the_gaussian() -> None:
    at = draw(3).detach()
    mean, log_std = at[:, 1:3], at[:, 3:5]
    one, plain = MixtureOfGaussians(at[:, :1], mean.unsqueeze(1), log_std.unsqueeze(1)), Gaussian(mean, log_std)
    torch.testing.assert_close(one.parameters[:, 1:], plain.parameters)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    action = one.sample(generators[0])
    assert torch.equal(action, plain.sample(generators[1]))
    assert torch.equal(generators[0].get_state(), generators[1].get_state())  # the same random numbers, and no more
    torch.testing.assert_close(one.log_prob(action), plain.log_prob(action))
    torch.testing.assert_close(one.entropy(), plain.entropy())
    torch.testing.assert_close(one.entropy_gradient()[:, 1:], plain.entropy_gradient())
    other = Gaussian(mean + 1, 0.3 * log_std)
    torch.testing.assert_close(one.kl(other), plain.kl(other))
    torch.testing.assert_close(one.kl_gradient(other)[:, 1:], plain.kl_gradient(other))
    torch.testing.assert_close(one.reverse_kl_gradient(other)[:, 1:], plain.reverse_kl_gradient(other))


def test_experts_that_are_all_the_same_are_one() -> None:
    plain = Gaussian(torch.tensor([[0.3, -1.0]]), torch.tensor([[0.2, -0.5]]))
    same = MixtureOfGaussians(torch.tensor([[0.0, 2.0, -1.0]]), plain.mean.expand(1, 3, 2), plain.log_std.expand(1, 3, 2))
    torch.testing.assert_close(same.entropy(), plain.entropy())
    torch.testing.assert_close(same.kl(plain), torch.zeros(1))


@given(seed=seeds)
def test_the_entropy_estimate_is_a_lower_bound_and_exact_far_apart(seed: int) -> None:
    found = mixture(draw(seed).detach()[:1])
    grid = torch.linspace(-25, 25, 1001, dtype=torch.float64)
    narrow = MixtureOfGaussians(found.logits, found.mean[..., :1], found.log_std[..., :1].clamp(-1.0, 1.0))
    density = narrow[torch.zeros(len(grid), dtype=torch.int64)].log_prob(grid.unsqueeze(-1))
    exact = -(density.exp() * density).sum() * (grid[1] - grid[0])
    assert narrow.entropy().item() <= exact.item() + 1e-6
    apart = MixtureOfGaussians(found.logits, found.mean + 1e3 * torch.arange(3)[:, None], found.log_std)
    weights = found.logits.softmax(-1)
    expected = (weights * apart.experts.entropy()).sum(-1) - (weights * weights.log()).sum(-1)
    torch.testing.assert_close(apart.entropy(), expected)


def test_samples_follow_the_mixture() -> None:
    logits, mean = torch.tensor([[1.0, -0.5]]), torch.tensor([[[-2.0], [1.0]]])
    many = MixtureOfGaussians(logits.expand(20_000, 2), mean.expand(20_000, 2, 1), torch.full((2, 1), -1.0))
    sample = many.sample(torch.Generator().manual_seed(0))
    left = (sample < -0.5).float().mean()
    torch.testing.assert_close(left, logits.softmax(-1)[0, 0], atol=0.015, rtol=0)
    torch.testing.assert_close(sample[sample < -0.5].mean(), torch.tensor(-2.0), atol=0.02, rtol=0)
    assert many.mode().unique().tolist() == [-2.0]
    chosen = MixtureOfGaussians(many.logits, many.mean, many.log_std, expert_generator=torch.Generator().manual_seed(1)).mode()
    assert sorted(chosen.unique().tolist()) == [-2.0, 1.0]
    torch.testing.assert_close((chosen < 0).float().mean(), logits.softmax(-1)[0, 0], atol=0.015, rtol=0)


# --- squashed -------------------------------------------------------------------------------------------------------------------------


def test_a_squashed_mixture_has_the_density_of_what_it_draws() -> None:
    found = squashed(0)
    noise = found.noise(torch.Generator().manual_seed(1))
    action, log_prob = found.draw(noise)
    assert action.shape == (ROWS, EXPERTS, DIMENSIONS) and log_prob.shape == (ROWS, EXPERTS)
    whole = found.mixture_log_prob(noise, log_prob)
    for k in range(EXPERTS):
        index = torch.full((ROWS,), k)
        torch.testing.assert_close(found.expert(index).log_prob(action[:, k]), log_prob[:, k])
        torch.testing.assert_close(found.log_prob(action[:, k]), whole[:, k])
    assert bool((whole >= log_prob + found.logits.log_softmax(-1)).all())  # the others can only add


def test_the_squashed_density_integrates_to_one() -> None:
    at = squashed(4)
    one = SquashedMixture(at.logits[:1], at.mean[:1, :, :1], at.log_std[:1, :, :1])
    u = torch.linspace(-9, 9, 4001, dtype=torch.float64)  # finer where tanh is steep
    action = u.tanh()
    many = SquashedMixture(*(x.expand(len(u), *x.shape[1:]) for x in (one.logits, one.mean, one.log_std)))
    density = many.log_prob(action.unsqueeze(-1)).exp()
    assert torch.trapezoid(density, action).item() == pytest.approx(1.0, abs=2e-3)


def test_a_squashed_mixture_of_one_is_the_squashed_gaussian() -> None:
    at = squashed(2)
    one, plain = SquashedMixture(at.logits[:, :1], at.mean[:, :1], at.log_std[:, :1]), SquashedGaussian(at.mean[:, 0], at.log_std[:, 0])
    generators = [torch.Generator().manual_seed(0) for _ in range(4)]
    assert torch.equal(one.sample(generators[0]), plain.sample(generators[1]))
    noise, plain_noise = one.noise(generators[2]), plain.noise(generators[3])
    assert torch.equal(noise.squeeze(1), plain_noise)
    (action, log_prob), (plain_action, plain_log_prob) = one.draw(noise), plain.draw(plain_noise)
    assert torch.equal(action.squeeze(1), plain_action) and torch.equal(log_prob.squeeze(1), plain_log_prob)
    torch.testing.assert_close(one.mixture_log_prob(noise, log_prob), log_prob)
    assert torch.equal(one.mode(), plain.mode())
    torch.testing.assert_close(one.log_prob(plain_action), plain.log_prob(plain_action))


def test_gradients_of_the_mixtures_density_reach_weights_and_all_experts() -> None:
    found = squashed(1)
    parts = [part.requires_grad_() for part in (found.logits, found.mean, found.log_std)]
    noise = found.noise(torch.Generator().manual_seed(0))
    _, log_prob = found.draw(noise)
    own = torch.autograd.grad(log_prob[:, 0].sum(), parts, retain_graph=True, allow_unused=True)
    assert own[0] is None and bool((own[1][:, 1:] == 0).all())  # the expert's own density is its own business
    whole = torch.autograd.grad(found.mixture_log_prob(noise, log_prob)[:, 0].sum(), parts)
    assert all(bool((gradient != 0).all()) for gradient in whole)
