"""Losses of latents: orthonormality, successor features, the successor measure, and the task of a reward."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from rheostat.errors import RheostatError
from rheostat.objectives.latent_prediction import (
    effective_rank,
    forward_backward_loss,
    laplacian_loss,
    latent_loss,
    latent_target,
    mixed_tasks,
    on_sphere,
    orthonormality,
    pessimistic,
    task_actor_loss,
    task_of_rewards,
)

SEEDS = st.integers(0, 10_000)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 8), st.integers(1, 5))
def test_orthonormality_is_a_distance_to_the_identity(seed: int, rows: int, features: int) -> None:
    """Of whole populations: 1/2 |C - I|^2 of the second moment C, up to a constant and the pairs of a row with itself."""
    e = normal(seed, rows, features)
    loops = sum(float(e[i] @ e[j]) ** 2 for i in range(rows) for j in range(rows) if i != j) / (2 * rows * (rows - 1))
    loops -= sum(float(e[i] @ e[i]) for i in range(rows)) / rows
    assert float(orthonormality(e)) == pytest.approx(loops)
    turn = torch.linalg.qr(normal(seed + 1, features, features))[0]
    assert float(orthonormality(e @ turn)) == pytest.approx(loops)  # directions have no names
    assert float(orthonormality(e.flip(0))) == pytest.approx(loops)


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 6), st.integers(1, 4), st.floats(0.0, 0.95))
def test_successor_features_are_the_fixed_point(seed: int, states: int, features: int, gamma: float) -> None:
    """F = P psi + gamma P F on a table; F . z is the value of the reward psi . z of the next state, for every z."""
    chances = normal(seed, states, states).softmax(-1)
    psi, z = normal(seed + 1, states, features), normal(seed + 2, features)
    exact = torch.linalg.solve(torch.eye(states, dtype=torch.float64) - gamma * chances, chances @ psi)
    discount = torch.full((states,), gamma, dtype=torch.float64)
    torch.testing.assert_close(chances @ latent_target(psi, exact.expand(2, -1, -1), discount), exact)
    value = torch.zeros(states, dtype=torch.float64)
    for _ in range(600):
        value = chances @ (psi @ z + gamma * value)
    torch.testing.assert_close(exact @ z, value, atol=1e-8, rtol=1e-6)


@settings(max_examples=15)
@given(SEEDS, st.integers(2, 5), st.floats(0.0, 0.9))
def test_the_successor_measure_is_where_the_residual_is_least(seed: int, states: int, gamma: float) -> None:
    """With uniform states, F B = (I - gamma P)^{-1} P / rho: the gradient of the expected loss is 0 there."""
    chances = normal(seed, states, states).softmax(-1)
    rho = torch.full((states,), 1 / states, dtype=torch.float64)
    measure = torch.linalg.solve(torch.eye(states, dtype=torch.float64) - gamma * chances, chances) / rho
    found = measure.clone().requires_grad_()
    # a row of the batch is (s, s'); columns are next states that are drawn alike
    residual = found.unsqueeze(1) - gamma * measure.unsqueeze(0)  # [s, s', column]
    weight = (rho.unsqueeze(-1) * chances).unsqueeze(-1) * rho
    loss = 0.5 * (weight * residual.square()).sum() - (rho.unsqueeze(-1) * chances * residual.diagonal(dim1=1, dim2=2)).sum()
    loss.backward()
    assert found.grad is not None
    torch.testing.assert_close(found.grad, torch.zeros_like(found.grad), atol=1e-10, rtol=0)


def test_the_residual_of_the_measure_by_loops() -> None:
    forward, backward, target, discount = normal(0, 2, 3, 4), normal(1, 3, 4), normal(2, 3, 3), torch.tensor([0.9, 0.0, 0.9]).double()
    expected = 0.0
    for member in range(2):
        d = [[float(forward[member, i] @ backward[j]) - float(discount[i] * target[i, j]) for j in range(3)] for i in range(3)]
        expected += sum(d[i][j] ** 2 for i in range(3) for j in range(3) if i != j) / 12 - sum(d[i][i] for i in range(3)) / 3
    assert float(forward_backward_loss(forward, backward, target, discount)) == pytest.approx(expected)


def test_squares_are_summed_over_features() -> None:
    members, target = normal(0, 2, 3, 4), normal(1, 3, 4)
    expected = sum(float((members[m, b, d] - target[b, d]) ** 2) for m in range(2) for b in range(3) for d in range(4)) / 6
    assert float(latent_loss(members, target)) == pytest.approx(expected)
    assert float(latent_loss(members, target)) == pytest.approx(4 * float((members - target).square().mean()))


def test_two_members_differ_by_their_distance() -> None:
    members = normal(0, 2, 5)
    torch.testing.assert_close(pessimistic(members, 0.5), members.mean(0) - 0.5 * (members[0] - members[1]).abs())
    assert torch.equal(pessimistic(members[:1]), members[0])
    with pytest.raises(RheostatError, match="no spread"):
        pessimistic(members[:1], 0.5)


@settings(max_examples=25)
@given(SEEDS, st.floats(0.01, 100.0))
def test_a_task_has_the_direction_of_its_reward(seed: int, scale: float) -> None:
    psi, z = on_sphere(normal(seed, 40, 5)), on_sphere(normal(seed + 1, 5))
    torch.testing.assert_close(task_of_rewards(psi, scale * (psi @ z)), z, atol=1e-6, rtol=1e-6)  # the scale is lost
    torch.testing.assert_close(task_of_rewards(psi, psi @ z, normalise=False), z, atol=1e-6, rtol=1e-6)


def test_features_that_span_less_have_a_task_too() -> None:
    psi = normal(0, 30, 2) @ normal(1, 2, 6)
    z = task_of_rewards(psi, psi @ normal(2, 6))
    assert bool(z.isfinite().all()) and float(z.square().mean()) == pytest.approx(1)


def test_tasks_are_goals_or_directions_on_the_sphere() -> None:
    uniform, goals = normal(0, 4, 3), 5 * normal(1, 4, 3)
    found = mixed_tasks(uniform, goals, torch.tensor([True, False, True, False]))
    torch.testing.assert_close(found.square().sum(-1), torch.full((4,), 3.0).double())
    torch.testing.assert_close(found[0], on_sphere(goals[0]))
    torch.testing.assert_close(found[1], on_sphere(uniform[1]))
    scaled = mixed_tasks(uniform, goals, torch.ones(4, dtype=torch.bool), torch.diag(torch.tensor([1.0, 4.0, 1.0])).double())
    torch.testing.assert_close(scaled, on_sphere(goals / torch.tensor([1.0, 4.0, 1.0])), atol=1e-5, rtol=1e-5)


def test_neighbours_are_alike() -> None:
    e = normal(0, 5, 3)
    assert float(laplacian_loss(e, e, 0.5)) == pytest.approx(float(orthonormality(e)))
    assert float(laplacian_loss(e, e + 2.0, 0.0)) == pytest.approx(4.0)


def test_imitation_does_not_know_the_scale_of_values() -> None:
    values, action, near = normal(0, 2, 4), normal(1, 4, 2), normal(2, 4, 2)
    one, ten = (float(task_actor_loss(scale * values, action, near, imitation=0.3)) for scale in (1.0, 10.0))
    assert one == pytest.approx(ten)
    assert float(task_actor_loss(values, action, near)) == pytest.approx(-float(values.mean()))


def test_the_effective_rank_counts_directions() -> None:
    assert effective_rank(torch.eye(4).repeat(3, 1)) == pytest.approx(4)
    assert effective_rank(torch.ones(6, 4)) == pytest.approx(1, abs=1e-6)
    assert math.isclose(effective_rank(torch.cat([torch.eye(4)[:2]] * 2)), 2, abs_tol=1e-6)


def test_one_row_has_no_pair() -> None:
    with pytest.raises(RheostatError, match="raise batch_size"):
        orthonormality(normal(0, 1, 3))
    with pytest.raises(RheostatError, match="raise batch_size"):
        forward_backward_loss(normal(0, 2, 1, 3), normal(1, 1, 3), normal(2, 1, 1), torch.ones(1).double())
