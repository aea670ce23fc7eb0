"""Losses of a model of the world: likelihood, soft bounds, held-out error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.dynamics_losses import between, holdout_error, model_likelihood


def draw(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean, log_variance, target = torch.randn(3, 2, 5, 3, generator=generator, dtype=torch.float64)
    return mean, log_variance, target


def test_it_is_twice_the_negative_log_likelihood_without_its_constant() -> None:
    mean, log_variance, target = draw()
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    constant = torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
    expected = (-2 * normal.log_prob(target) - constant).mean((1, 2)).sum()
    torch.testing.assert_close(model_likelihood(mean, log_variance, target), expected)


def test_networks_share_nothing_and_the_best_spread_is_the_error() -> None:
    mean, log_variance, target = draw()
    mean.requires_grad_()
    gradient = torch.autograd.grad(model_likelihood(mean, log_variance, target), mean)[0]
    alone = torch.autograd.grad(model_likelihood(mean[:1], log_variance[:1], target[:1]), mean)[0]
    torch.testing.assert_close(gradient[0], alone[0])
    right = (mean.detach() - target).square().log().requires_grad_()
    assert torch.autograd.grad(model_likelihood(mean.detach(), right, target), right)[0].abs().max() < 1e-12


def test_between_bends_into_the_limits_and_leaves_the_middle() -> None:
    low, high = torch.tensor(-10.0), torch.tensor(0.5)
    x = torch.tensor([-1e6, -4.0, 1e6])
    bent = between(x, low, high)
    assert bent[0].item() == pytest.approx(-10.0, abs=1e-4) and bent[2].item() == pytest.approx(0.5, abs=1e-4)
    assert bent[1].item() == pytest.approx(-4.0, abs=0.02)


def test_shapes_are_refused() -> None:
    mean, log_variance, target = draw()
    with pytest.raises(RheostatError, match=r"target \[1, 5, 3\]"):
        model_likelihood(mean, log_variance, target[:1])
    with pytest.raises(RheostatError, match="target"):
        holdout_error(mean, target)
    assert holdout_error(mean, target[0]).shape == (2,)
