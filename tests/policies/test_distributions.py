"""Action distributions: derivatives by hand against autograd, divergences against PyTorch's own distributions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch import distributions as reference

from rheostat.policies.control.distributions import Categorical, Distribution, Gaussian, MultiCategorical, epsilon_greedy

Build = Callable[[Tensor], Distribution]

GAUSSIAN: Build = lambda p: Gaussian(p[:, :3], p[:, 3:])  # noqa: E731
SHARED: Build = lambda p: Gaussian(p[:, :3], p[0, 3:])  # noqa: E731
CATEGORICAL: Build = Categorical
MULTI: Build = lambda p: MultiCategorical(p, (2, 4))  # noqa: E731
BUILDS = {"gaussian": GAUSSIAN, "gaussian with one deviation": SHARED, "categorical": CATEGORICAL, "multi": MULTI}


def parameters(seed: int, *, shared: bool = False) -> Tensor:
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.7
    if shared:
        values[:, 3:] = values[0, 3:]
    return values.requires_grad_()


def gradient(build: Build, of: Callable[[Distribution], Tensor], at: Tensor) -> Tensor:
    """Row by row, so that a shared deviation is differentiated for every row apart."""
    found = torch.zeros_like(at)
    for row in range(len(at)):
        (gradient,) = torch.autograd.grad(of(build(at[row : row + 1])).sum(), at, allow_unused=True)
        found += 0 if gradient is None else gradient
    return found


@pytest.mark.parametrize("name", BUILDS)
def test_slopes_are_what_autograd_finds(name: str) -> None:
    build, shared = BUILDS[name], "one" in name
    at, other = parameters(0, shared=shared), parameters(1, shared=shared)
    here, there = build(at.detach()), build(other.detach())
    action = here.sample(torch.Generator().manual_seed(2))
    log_prob, score = here.log_prob_and_gradient(action)
    torch.testing.assert_close(log_prob, here.log_prob(action))
    for row in range(len(at)):
        one = lambda d, row=row: d.log_prob(action[row : row + 1])  # noqa: E731
        torch.testing.assert_close(score[row], gradient(build, one, at)[row])
        one_kl = lambda d, row=row: d.kl(build(other.detach()[row : row + 1]))  # noqa: E731
        torch.testing.assert_close(here.kl_gradient(there)[row], gradient(build, one_kl, at)[row])
        reverse = lambda d, row=row: build(other.detach()[row : row + 1]).kl(d)  # noqa: E731
        torch.testing.assert_close(here.reverse_kl_gradient(there)[row], gradient(build, reverse, at)[row])
    torch.testing.assert_close(here.entropy_gradient(), gradient(build, lambda d: d.entropy(), at))


@pytest.mark.parametrize("name", BUILDS)
def test_parameters_define_the_distribution_and_carry_the_gradient(name: str) -> None:
    at = parameters(0, shared="one" in name)
    distribution = BUILDS[name](at)
    torch.testing.assert_close(distribution.parameters, at)
    assert distribution.parameters.requires_grad and not distribution.detach().parameters.requires_grad


def test_numbers_agree_with_pytorch() -> None:
    at, other = parameters(0).detach(), parameters(1).detach()
    gaussian, their = Gaussian(at[:, :3], at[:, 3:]), reference.Normal(at[:, :3], at[:, 3:].exp())
    second, their_second = Gaussian(other[:, :3], other[:, 3:]), reference.Normal(other[:, :3], other[:, 3:].exp())
    torch.testing.assert_close(gaussian.log_prob(at[:, :3] + 1), their.log_prob(at[:, :3] + 1).sum(-1))
    torch.testing.assert_close(gaussian.entropy(), their.entropy().sum(-1))
    torch.testing.assert_close(gaussian.kl(second), reference.kl_divergence(their, their_second).sum(-1))
    choice, theirs = Categorical(at), reference.Categorical(logits=at)
    picked = torch.tensor([0, 5, 2, 2, 1])
    torch.testing.assert_close(choice.log_prob(picked), theirs.log_prob(picked))
    torch.testing.assert_close(choice.entropy(), theirs.entropy())
    torch.testing.assert_close(choice.kl(Categorical(other)), reference.kl_divergence(theirs, reference.Categorical(logits=other)))


def test_samples_follow_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([[0.0, 1.0, -1.0]]).expand(20_000, 3)
    frequencies = torch.bincount(Categorical(logits).sample(generator), minlength=3) / 20_000
    torch.testing.assert_close(frequencies, logits[0].softmax(-1), atol=0.015, rtol=0)
    mean, log_std = torch.tensor([[1.0, -2.0]]).expand(20_000, 2), torch.tensor([-1.0, 0.5])
    sample = Gaussian(mean, log_std).sample(generator)
    torch.testing.assert_close(sample.mean(0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(sample.std(0), log_std.exp(), atol=0.05, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0])
def test_epsilon_greedy_has_the_probabilities_of_its_name_and_finite_logarithms(epsilon: float) -> None:
    policy = epsilon_greedy(torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, -2.0]]), epsilon)
    best = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(policy.log_probs.exp(), (1 - epsilon) * best + epsilon / 3)
    assert policy.log_probs.isfinite().all()
    if epsilon < 1:
        assert policy.mode().tolist() == [1, 0]
