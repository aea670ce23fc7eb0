"""KL estimators: values, gradients, and the truth of what the docstring says each of them estimates."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.kl import KLEstimator, categorical_kl, gaussian_kl, kl_estimate, straight_through

seeds = st.integers(0, 2**32 - 1)


def two_policies(seed: int, actions: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    learner, reference = torch.randn(2, actions, generator=generator, dtype=torch.float64)
    return learner.requires_grad_(), reference


def expectation(learner: Tensor, reference: Tensor, estimator: KLEstimator) -> tuple[Tensor, Tensor]:
    """Exact mean of an estimator over the learner's samples, and the exact mean of its gradient."""
    logp, probs = learner.log_softmax(-1), learner.softmax(-1).detach()
    mean = (probs * kl_estimate(logp, reference.log_softmax(-1), estimator)).sum()
    return mean, torch.autograd.grad(mean, learner)[0]


def gradient_of(divergence: Tensor, learner: Tensor) -> Tensor:
    return torch.autograd.grad(divergence, learner)[0]


@given(seed=seeds)
def test_k1_and_k3_are_unbiased_and_k1_has_no_gradient(seed: int) -> None:
    learner, reference = two_policies(seed)
    exact = categorical_kl(learner, reference)
    for estimator in ("k1", "k3"):
        torch.testing.assert_close(expectation(learner, reference, estimator)[0], exact)
    torch.testing.assert_close(expectation(learner, reference, "k1")[1], torch.zeros_like(learner))


@given(seed=seeds)
def test_gradient_of_k2_is_that_of_the_kl_and_of_k3_that_of_the_other_direction(seed: int) -> None:
    learner, reference = two_policies(seed)
    torch.testing.assert_close(expectation(learner, reference, "k2")[1], gradient_of(categorical_kl(learner, reference), learner))
    torch.testing.assert_close(expectation(learner, reference, "k3")[1], gradient_of(categorical_kl(reference, learner), learner))


@given(seed=seeds)
def test_abs_is_at_least_the_kl(seed: int) -> None:
    learner, reference = two_policies(seed)
    assert expectation(learner, reference, "abs")[0] >= categorical_kl(learner, reference) - 1e-12


@pytest.mark.parametrize("estimator", ["k1", "abs", "k2", "k3"])
def test_the_reference_is_a_constant(estimator: KLEstimator) -> None:
    logp, reference = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    grads = torch.autograd.grad(kl_estimate(logp, reference, estimator).sum(), [logp, reference], allow_unused=True)
    assert grads[0] is not None and grads[1] is None


def test_clamps_cut_value_and_gradient_of_k3() -> None:
    logp = torch.tensor([-30.0, -5.0, -1.0], requires_grad=True)
    k3 = kl_estimate(logp, torch.full((3,), -1.0), "k3", log_clamp=20.0, value_clamp=10.0)
    assert k3.tolist() == pytest.approx([10.0, 10.0, 0.0])
    assert torch.autograd.grad(k3.sum(), logp)[0].tolist() == [0.0, 0.0, 0.0]
    assert kl_estimate(logp, torch.full((3,), -1.0), "k3")[1].item() == pytest.approx(math.exp(4.0) - 5.0)


def test_straight_through_has_one_value_and_another_gradient() -> None:
    logp, reference = torch.tensor([-1.0], requires_grad=True), torch.tensor([-2.0])
    k2, k3 = kl_estimate(logp, reference, "k2"), kl_estimate(logp, reference, "k3")
    joined = straight_through(k3, k2)
    assert joined.item() == pytest.approx(math.exp(-1.0))
    assert torch.autograd.grad(joined.sum(), logp)[0].item() == pytest.approx(1.0)


@pytest.mark.parametrize("estimator", ["k1", "abs", "k2", "k3"])
def test_masked_nan_is_harmless(estimator: KLEstimator) -> None:
    logp = torch.tensor([math.nan, -1.0], requires_grad=True)
    mask = torch.tensor([False, True])
    estimate = kl_estimate(logp, torch.tensor([math.nan, -2.0]), estimator, mask=mask)
    assert estimate[0].item() == 0.0
    assert torch.autograd.grad(estimate.sum(), logp)[0].isfinite().all()


@given(seed=seeds)
def test_gaussian_kl_matches_torch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean_p, log_std_p, mean_q, log_std_q = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    p, q = (torch.distributions.Normal(mean, log_std.exp()) for mean, log_std in ((mean_p, log_std_p), (mean_q, log_std_q)))
    torch.testing.assert_close(gaussian_kl(mean_p, log_std_p, mean_q, log_std_q), torch.distributions.kl_divergence(p, q))
    state_independent = gaussian_kl(mean_p, log_std_p[0], mean_q, log_std_q[0])
    assert state_independent.shape == (3, 2)


def test_categorical_kl_excludes_impossible_actions() -> None:
    p = torch.tensor([0.0, 0.0, -math.inf], requires_grad=True)
    divergence = categorical_kl(p, torch.tensor([0.0, 1.0, -math.inf]))
    expected = sum(0.5 * (math.log(0.5) - math.log(x)) for x in (1 / (1 + math.e), math.e / (1 + math.e)))
    assert divergence.item() == pytest.approx(expected, rel=1e-5)


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match="straight_through"):
        kl_estimate(torch.zeros(2), torch.zeros(2), "k3+")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="one shape"):
        kl_estimate(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(RheostatError, match="one shape"):
        categorical_kl(torch.zeros(2), torch.zeros(3))
