"""Densities are those of the draws as they were made; what leaves the bounds is clipped outside the policy."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rheostat.analysis.fitted_q import Judged
from rheostat.analysis.offline_evaluation import log_ratios
from rheostat.collect.control.offline_data import record
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.squashed import EDGE, Bounds, DeterministicAction, Rescaled, SquashedGaussian
from rheostat.tasks.control import make
from tests.tiny_control import small

BOUNDS = Bounds(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0]))
ROWS = 20_000


def gaussian(mean: float, log_std: float, rows: int = ROWS) -> Gaussian:
    return Gaussian(torch.full((rows, 2), mean), torch.full((2,), log_std))


def truth(policy: Any, action: torch.Tensor) -> torch.Tensor:
    """Log-density in the world's units of unit Gaussians, float64, without any clipping."""
    unit = (action.double() - BOUNDS.centre) / BOUNDS.half.double()
    normal = torch.distributions.Normal(policy.mean.double(), policy.log_std.double().exp())
    return normal.log_prob(unit).sum(-1) - BOUNDS.half.double().log().sum()


def test_a_draw_beyond_the_bounds_keeps_its_own_density() -> None:
    policy = gaussian(0.8, 0.0)
    action = Rescaled(policy, BOUNDS).sample(torch.Generator().manual_seed(0))
    outside = (BOUNDS.drawn(action).abs() > 1).any(-1)
    assert 0.3 < outside.float().mean() < 0.95, "otherwise this tests nothing"
    torch.testing.assert_close(Rescaled(policy, BOUNDS).log_prob(action).double(), truth(policy, action), atol=2e-5, rtol=1e-6)
    assert (BOUNDS.to_unit(action).abs() <= 1).all()


@pytest.mark.parametrize(("mine", "theirs"), [((0.8, -0.5), (0.5, -0.3)), ((0.5, -0.3), (0.8, -0.5))])
def test_ratios_have_the_mean_one_in_both_directions(mine: tuple[float, float], theirs: tuple[float, float]) -> None:
    """E over b of p/b is 1, and of a policy with itself every ratio is."""
    sampler, learner = Rescaled(gaussian(*theirs, rows=200_000), BOUNDS), Rescaled(gaussian(*mine, rows=200_000), BOUNDS)
    action = sampler.sample(torch.Generator().manual_seed(1))
    ratio = (learner.log_prob(action) - sampler.log_prob(action)).double().exp()
    assert ratio.mean().item() == pytest.approx(1, abs=5 * ratio.std().item() / math.sqrt(len(ratio)))
    assert (sampler.log_prob(action) - sampler.log_prob(action.clone())).abs().max() < 1e-6


def test_noise_around_a_deterministic_action_is_not_limited_before_its_density() -> None:
    policy = Rescaled(DeterministicAction(torch.full((ROWS, 2), 0.95), 0.2), BOUNDS)
    action = policy.sample(torch.Generator().manual_seed(2))
    assert (BOUNDS.drawn(action) > 1).float().mean() > 0.3
    other = Rescaled(DeterministicAction(torch.full((ROWS, 2), 0.9), 0.2), BOUNDS)
    ratio = (other.log_prob(action) - policy.log_prob(action)).double().exp()
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("mean", [0.0, 3.0, 6.0])
def test_squashed_draws_have_the_density_of_the_change_of_variables(mean: float) -> None:
    policy = SquashedGaussian(torch.full((ROWS, 2), mean, dtype=torch.float64), torch.full((2,), -0.5, dtype=torch.float64))
    noise = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    action, exact = policy.draw(noise)
    inside = (action.abs() < EDGE).all(-1)
    assert inside.float().mean() > 0.6
    torch.testing.assert_close(policy.log_prob(action)[inside], exact[inside], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(policy.log_prob(action.atanh().tanh())[inside], exact[inside], atol=1e-6, rtol=1e-6)


def test_a_saturated_action_counts_as_just_inside_for_everybody() -> None:
    policy = SquashedGaussian(torch.full((1, 1), 9.0), torch.zeros(1))
    at, edge = torch.ones(1, 1), torch.full((1, 1), EDGE)
    assert policy.log_prob(at).item() == pytest.approx(policy.log_prob(edge).item(), abs=1e-6)
    u = math.atanh(float(edge.double()))
    exact = -0.5 * (u - 9) ** 2 - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - u - math.log1p(math.exp(-2 * u)))
    assert policy.log_prob(at).item() == pytest.approx(exact, abs=0.02 * abs(exact))  # float32 holds the edge to 6 %
    world = Rescaled(policy, Bounds(torch.tensor([1.0]), torch.tensor([0.3])))
    assert world.log_prob(world.sample(torch.Generator().manual_seed(0))).isfinite()
    assert policy.log_prob(torch.full((1, 1), 1.5)).item() == -math.inf  # never drawn


def test_a_recorded_data_set_and_its_own_policy_have_ratios_of_one() -> None:
    bounds = Bounds(torch.zeros(1), torch.full((1,), 2.0))

    def act(observation: torch.Tensor) -> Rescaled:
        return Rescaled(Gaussian(torch.full((len(observation), 1), 0.7), torch.full((1,), -0.2)), bounds)

    def draw(observation: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        action = act(observation).sample(generator)
        return action, act(observation).log_prob(action)

    data = record(draw, make("Pendulum-v1", num_envs=2, seed=0), 500, generator=torch.Generator().manual_seed(0), facts={})
    assert data.drawn_action is not None and (data.transitions.action.abs() <= 2).all()
    ratio = log_ratios(Judged(act, data, None), data).exp()  # type: ignore[arg-type]
    assert (ratio - 1).abs().max() < 1e-5 and torch.equal(data.as_drawn.action, data.drawn_action)


def test_the_meter_reads_the_draws() -> None:
    """A policy that does not move is on-policy with itself, also where most draws leave the bounds."""
    from rheostat.methods import table
    from rheostat.training.building import build_method

    method: Any = build_method(small("td3", steps=400, start_steps=64, learning_rate=1e-12, exploration_noise=1.5), "Pendulum-v1")
    assert table.entry("td3").domain == "control"
    found: dict[str, float] = {}
    while method.steps < 400:
        found |= method.turn()
    assert found["meter/ratio_median"] == pytest.approx(1, abs=1e-3)
