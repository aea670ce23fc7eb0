"""Bellman errors, beta, concentrability and estimators: the relations between them hold for every process."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat import tabular as lab
from rheostat.errors import RheostatError
from tests.tabular.draws import distribution, generator

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(2, 5), st.integers(1, 3))
few = settings(max_examples=12)


def close(a: Any, b: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64), atol=tolerance, rtol=tolerance
    )


@few
@given(seeds, sizes, st.floats(0.0, 0.97))
def test_the_value_is_its_own_backup_and_solves_the_equations(seed: int, size: tuple[int, int], gamma: float) -> None:
    problem = lab.random_prediction(*size, gamma, generator(seed))
    q = lab.action_values(problem.mdp, problem.policy)
    close(lab.backup(problem.mdp, problem.policy, q), q)
    close(lab.expected(problem.policy, q), lab.state_values(problem.mdp, problem.policy))
    assert float(lab.bellman_error(problem, q)) < 1e-9
    start = torch.zeros_like(q)
    after = start
    for _ in range(100):
        after = lab.backup(problem.mdp, problem.policy, after)
    assert float((after - q).abs().max()) <= gamma**100 * float((start - q).abs().max()) + 1e-9  # a contraction


@few
@given(seeds, sizes, st.floats(0.0, 0.97))
def test_occupancy_is_normalised_and_earns_the_value(seed: int, size: tuple[int, int], gamma: float) -> None:
    problem = lab.random_prediction(*size, gamma, generator(seed))
    d = lab.occupancy(problem.mdp, problem.policy)
    assert (d >= 0).all()
    close(d.sum(), 1.0)
    close((d * problem.mdp.reward).sum() / (1 - gamma), lab.policy_value(problem.mdp, problem.policy))
    flow = torch.einsum("sa,sat->t", d, problem.mdp.transition)
    close(d.sum(1), (1 - gamma) * problem.mdp.start + gamma * flow)


@few
@given(seeds, sizes, st.floats(0.0, 0.97))
def test_the_error_telescopes_and_is_bounded(seed: int, size: tuple[int, int], gamma: float) -> None:
    draw = generator(seed)
    problem = lab.random_prediction(*size, gamma, draw)
    f = 3 * torch.randn(size, generator=draw, dtype=torch.float64)
    error = lab.prediction_error(problem, f)
    close(lab.telescoped_error(problem, f), error, 1e-10 / (1 - gamma))
    d = lab.occupancy(problem.mdp, problem.policy)
    classes = [
        lab.class_concentrability(problem, f),
        lab.second_moment_concentrability(d, problem.data),
        lab.concentrability(d, problem.data),
    ]
    assert classes[0] <= classes[1] * (1 + 1e-9) and classes[1] <= classes[2] * (1 + 1e-9) and classes[2] >= 1 - 1e-9
    for constant in classes:
        assert abs(error) <= lab.prediction_bound(float(lab.bellman_error(problem, f)), constant, gamma) * (1 + 1e-9)


@few
@given(seeds, sizes, st.integers(1, 6))
def test_a_listed_class_has_gaps_below_errors_and_a_bracket_above_its_share(seed: int, size: tuple[int, int], number: int) -> None:
    draw = generator(seed)
    problem = lab.random_prediction(*size, 0.9, draw)
    members = torch.randn(number, *size, generator=draw, dtype=torch.float64)
    error, gap = lab.bellman_error(problem, members), lab.completeness_gap(problem, members, members)
    beta = lab.incompleteness(problem, members)
    assert (gap >= 0).all() and (gap <= error + 1e-12).all() and 0 <= beta <= 1
    bracket = lab.minimax_value(problem, members, members)
    assert (bracket >= (1 - beta**2) * error.square() - 1e-12).all()
    whole = lab.inherent_bellman_error(problem, members)
    close(whole, gap.max())
    radii = [float(error.min()) / 2, *error.sort().values.tolist()]
    local = [lab.inherent_bellman_error(problem, members, radius) for radius in radii]
    assert local[0] == 0 and local == sorted(local) and local[-1] == whole
    assert all(found <= beta * radius + 1e-12 for found, radius in zip(local, radii, strict=True))


@few
@given(seeds, sizes, st.integers(1, 5))
def test_a_richer_class_of_comparisons_closes_the_gap(seed: int, size: tuple[int, int], number: int) -> None:
    draw = generator(seed)
    problem = lab.random_prediction(*size, 0.9, draw)
    members = torch.randn(number + 1, *size, generator=draw, dtype=torch.float64)
    f = members[0]
    assert lab.completeness_gap(problem, f, members) <= lab.completeness_gap(problem, f, members[:number])
    backed = torch.cat([members, lab.backup(problem.mdp, problem.policy, f)[None]])
    assert float(lab.completeness_gap(problem, f, backed)) < 1e-12


@few
@given(seeds, st.integers(1, 4))
def test_linear_beta_is_the_largest_ratio_of_gap_to_error(seed: int, number: int) -> None:
    draw = generator(seed)
    problem = lab.random_prediction(4, 2, 0.9, draw)
    features = lab.realizable_features(problem, number, draw)
    beta = lab.linear_incompleteness(problem, features)
    ratios = []
    for _ in range(8):
        weights = torch.randn(number, generator=draw, dtype=torch.float64)
        f = lab.action_values(problem.mdp, problem.policy) + lab.linear_values(features, weights)
        error, gap = float(lab.bellman_error(problem, f)), lab.linear_completeness_gap(problem, f, features)
        assert gap <= error + 1e-10 and error**2 - gap**2 >= (1 - beta**2) * error**2 - 1e-9
        ratios.append(gap / error)
        distance = float(lab.data_norm(f - lab.action_values(problem.mdp, problem.policy), problem.data))
        assert gap <= lab.linear_inherent_bellman_error(problem, features, distance) + 1e-9
        moments = lab.Moments.population(problem, features)
        weight_of_f = weights + torch.nn.functional.one_hot(torch.tensor(0), number) * _scale(problem)
        close(lab.linear_minimax_objective(moments, weight_of_f), error**2 - gap**2, 1e-7)
    assert max(ratios) <= beta + 1e-9
    close(_beta_by_eigenvalue(problem, features), beta, 1e-7)


def _scale(problem: lab.Prediction) -> float:
    return float(lab.action_values(problem.mdp, problem.policy).abs().max())


def _beta_by_eigenvalue(problem: lab.Prediction, features: torch.Tensor) -> float:
    """The definition for a span that holds the value: the largest eigenvalue of (B, A + B)."""
    import numpy as np
    from scipy.linalg import eigh

    mu, phi = problem.data.flatten().numpy(), features.flatten(0, 1).numpy()
    ahead = problem.mdp.gamma * lab.next_features(problem, features).flatten(0, 1).numpy()
    projection = phi @ np.linalg.solve(phi.T @ (mu[:, None] * phi), phi.T * mu)
    inside, outside = phi - projection @ ahead, ahead - projection @ ahead
    a, b = (x.T @ (mu[:, None] * x) for x in (inside, outside))
    return math.sqrt(max(float(eigh(b, a + b, eigvals_only=True)[-1]), 0.0))


@few
@given(seeds, sizes)
def test_tabular_features_are_complete(seed: int, size: tuple[int, int]) -> None:
    problem = lab.random_prediction(*size, 0.9, generator(seed))
    features = torch.eye(size[0] * size[1], dtype=torch.float64).view(*size, -1)
    assert lab.linear_incompleteness(problem, features) < 1e-7
    f = torch.randn(size, generator=generator(seed), dtype=torch.float64)
    assert lab.linear_completeness_gap(problem, f, features) < 1e-9
    close(lab.fitted_q_radius(lab.Moments.population(problem, features)), 0.9)
    d = lab.occupancy(problem.mdp, problem.policy)
    close(lab.linear_class_concentrability(problem, features), lab.second_moment_concentrability(d, problem.data), 1e-6)


@few
@given(seeds, st.integers(1, 4))
def test_population_estimates_are_the_true_value_where_it_is_realizable(seed: int, number: int) -> None:
    draw = generator(seed)
    problem = lab.random_prediction(5, 2, 0.9, draw)
    features = lab.realizable_features(problem, number, draw)
    moments, q = lab.Moments.population(problem, features), lab.action_values(problem.mdp, problem.policy)
    if lab.linear_incompleteness(problem, features) > 0.9999:
        return
    for weights in (lab.lstd(moments), lab.linear_minimax(moments)):
        close(lab.linear_values(features, weights), q, 1e-6)
    if lab.fitted_q_radius(moments) < 0.93:
        close(lab.linear_values(features, lab.linear_fitted_q(moments, 300)[-1]), q, 1e-4)
    at_value = lab.linear_fitted_q(moments, 1, lab.lstd(moments))[0]
    close(at_value, lab.lstd(moments), 1e-6)


@few
@given(seeds)
def test_moments_of_data_that_hold_every_transition_are_the_populations(seed: int) -> None:
    """In a deterministic process with as many copies of a pair as it is likely."""
    draw = generator(seed)
    copies = torch.randint(1, 5, (6,), generator=draw)
    pair = torch.repeat_interleave(torch.arange(6), copies)
    state, action = pair // 2, pair % 2
    move = torch.randint(3, (3, 2), generator=draw)
    reward = torch.rand(3, 2, generator=draw, dtype=torch.float64)
    mdp = lab.DiscountedMDP(lab.one_hot(move, 3), reward, distribution(draw, 3), 0.9)
    problem = lab.Prediction(mdp, distribution(draw, 3, 2), (copies / copies.sum().double()).view(3, 2))
    features = torch.randn(3, 2, 2, generator=draw, dtype=torch.float64)
    data = lab.Transitions(state, action, reward[state, action], move[state, action])
    of_data, exact = lab.Moments.of_data(data, problem.policy, 0.9, features), lab.Moments.population(problem, features)
    for name in ("gram", "cross", "reward", "next_gram", "next_reward", "matrix", "residual_gram"):
        close(getattr(of_data, name), getattr(exact, name))
    members = torch.randn(4, 3, 2, generator=draw, dtype=torch.float64)
    losses = lab.empirical_losses(data, problem.policy, 0.9, members)
    close(losses.diagonal(), lab.bellman_error(problem, members).square())  # deterministic moves: the naive residual is right
    close(lab.minimax_estimate(losses).objective, lab.minimax_value(problem, members, members))


@few
@given(seeds)
def test_the_naive_residual_adds_the_variance_of_transitions(seed: int) -> None:
    draw = generator(seed)
    problem = lab.random_prediction(3, 2, 0.9, draw)
    features = torch.randn(3, 2, 2, generator=draw, dtype=torch.float64)
    moments = lab.Moments.population(problem, features)
    weights = torch.randn(2, generator=draw, dtype=torch.float64)
    f = lab.linear_values(features, weights)
    following = lab.expected(problem.policy, f)
    mean = problem.mdp.transition @ following
    variance = problem.mdp.transition @ following.square() - mean.square()
    reward_square = (problem.data * problem.mdp.reward.square()).sum()
    naive = weights @ moments.residual_gram @ weights - 2 * weights @ (moments.reward - 0.9 * moments.next_reward) + reward_square
    close(naive, lab.bellman_error(problem, f).square() + (problem.data * 0.81 * variance).sum())
    best = lab.linear_residual(moments)
    right = moments.reward - 0.9 * moments.next_reward
    close(moments.residual_gram @ best, right, 1e-7)
    assert moments.incompleteness >= lab.linear_incompleteness(problem, features) - 1e-7 or not _realizable(problem, features)


def _realizable(problem: lab.Prediction, features: torch.Tensor) -> bool:
    q = lab.action_values(problem.mdp, problem.policy)
    return float((lab.projected(q, features, problem.data) - q).abs().max()) < 1e-9


@few
@given(seeds)
def test_sampled_losses_approach_those_of_the_population(seed: int) -> None:
    """The minimax objective of 4,000 transitions lies within five standard deviations, generously bounded."""
    draw = generator(seed)
    problem = lab.random_prediction(3, 2, 0.5, draw)
    members = torch.cat([lab.action_values(problem.mdp, problem.policy)[None], torch.randn(3, 3, 2, generator=draw, dtype=torch.float64)])
    data = lab.sample_transitions(problem, 4000, noise=0.1, generator=draw)
    losses = lab.empirical_losses(data, problem.policy, 0.5, members)
    found = lab.minimax_estimate(losses)
    assert (found.objective >= 0).all()
    largest = 4 * float(members.abs().max()) + 2
    close(found.objective, lab.minimax_value(problem, members, members), 10 * largest**2 / 4000**0.5)
    assert lab.fitted_q_estimate(losses, 3)[0] == 0 and len(lab.fitted_q_estimate(losses, 3)) == 4
    assert lab.residual_estimate(losses) == int(losses.diagonal().argmin())


@pytest.mark.parametrize(
    ("share", "beta", "amplification"),
    [
        (0.9, 0.56, 1.21),
        (0.7, 0.80, 1.68),
        (0.5, 0.90, 2.33),
        (0.35, 0.95, 3.14),
        (0.25, 0.97, 4.11),
        (0.1, 0.995, 9.6),
        (0.02, 0.998, 14.2),
    ],
)
def test_the_two_states_of_the_paper_s_small_claim(share: float, beta: float, amplification: float) -> None:
    problem, features = lab.two_states(share)
    found = lab.linear_incompleteness(problem, features)
    moments = lab.Moments.population(problem, features)
    assert found == pytest.approx(beta, abs=6e-3) and 1 / math.sqrt(1 - found**2) == pytest.approx(amplification, rel=5e-3)
    assert moments.incompleteness == pytest.approx(found, abs=1e-9)  # deterministic moves
    assert float(lab.lstd(moments).abs().max()) < 1e-12
    diverges = float(lab.linear_fitted_q(moments, 300, torch.ones(1, dtype=torch.float64))[-1].abs()) > 1
    assert diverges == (lab.fitted_q_radius(moments) > 1)


def test_a_singular_matrix_is_refused_with_beta() -> None:
    """m (1 - 2 gamma) + 4 (1 - m)(1 - gamma) = 0 at this share of the first state."""
    gamma = 0.9
    share = 4 * (1 - gamma) / (4 * (1 - gamma) - (1 - 2 * gamma))
    problem, features = lab.two_states(share, gamma)
    assert lab.linear_incompleteness(problem, features) == pytest.approx(1, abs=1e-12)
    moments = lab.Moments.population(problem, features)
    with pytest.raises(RheostatError, match=r"matrix of LSTD is singular .* beta is 1\."):
        lab.lstd(moments)
    assert lab.linear_minimax(moments).abs().max() < 1e-9
    twice = torch.cat([features, features], -1)
    with pytest.raises(RheostatError, match=r"singular .* beta is 0\.9.* collinear"):
        lab.lstd(lab.Moments.population(lab.two_states(0.5)[0], twice))
    with pytest.raises(RheostatError, match="collinear"):
        lab.fitted_q_radius(lab.Moments.population(problem, twice))
    with pytest.raises(RheostatError, match="collinear"):
        lab.linear_fitted_q(lab.Moments.population(problem, twice), 1)


def test_endings_count_as_nothing_after_them() -> None:
    move = torch.tensor([[[0.5]]], dtype=torch.float64)  # ends with probability one half
    reward, start = torch.ones(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    mdp, policy = lab.DiscountedMDP(move, reward, start, 1.0), torch.ones(1, 1, dtype=torch.float64)
    assert lab.policy_value(mdp, policy) == pytest.approx(2)
    problem = lab.Prediction(lab.DiscountedMDP(move, reward, start, 0.8), policy, policy)
    data = lab.sample_transitions(problem, 20_000, noise=0.0, generator=generator(0))
    assert data.ended is not None and data.ended.double().mean() == pytest.approx(0.5, abs=0.02)
    weights = lab.lstd(lab.Moments.of_data(data, policy, 0.8, torch.ones(1, 1, 1, dtype=torch.float64)))
    assert weights.item() == pytest.approx(lab.policy_value(problem.mdp, policy), rel=0.03)


def one(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: lab.DiscountedMDP(one(1, 1, 1), one(1, 1), one(1), 1.0), "gamma is 1.0"),
        (lambda: lab.DiscountedMDP(one(1, 1, 1).float(), one(1, 1), one(1), 0.9), "float64"),
        (lambda: lab.DiscountedMDP(one(2, 1, 1), one(1, 1), one(1), 0.9), r"\[2, 1, 1\], and \[1, 1, 1\]"),
        (lambda: lab.DiscountedMDP(2 * one(1, 1, 1), one(1, 1), one(1), 0.9), "no list of probabilities"),
        (lambda: lab.DiscountedMDP(one(1, 1, 1), one(1, 1), 0 * one(1), 0.9), "start is no distribution: it has no support"),
        (lambda: lab.DiscountedMDP(one(1, 1, 1), one(1, 1), one(1) / 2, 0.9), "sums to 0.5"),
        (lambda: lab.DiscountedMDP(one(0, 1, 0), one(0, 1), one(0), 0.9), "each at least 1"),
        (lambda: lab.two_states(1.0), "share of state 1"),
        (lambda: lab.Transitions(*[torch.zeros(0, dtype=torch.int64)] * 4), "data set is empty"),
        (lambda: lab.incompleteness(lab.two_states(0.5)[0], one(0, 2, 1)), "class of functions is empty"),
        (lambda: lab.linear_incompleteness(lab.two_states(0.5)[0], one(2, 1)), r"\[S, A, d\]"),
        (lambda: lab.state_values(lab.two_states(0.5)[0].mdp, one(2, 1) / 2), "policy.* is no distribution"),
    ],
)
def test_mistakes_are_one_sentence(mistake: Any, says: str) -> None:
    with pytest.raises(RheostatError, match=says):
        mistake()


def test_data_without_support_are_refused_where_the_policy_goes() -> None:
    problem, _ = lab.two_states(0.5)
    d = lab.occupancy(problem.mdp, problem.policy)
    with pytest.raises(RheostatError, match=r"no support at \[1, 0\], where a policy is with probability 0.99"):
        lab.concentrability(d, torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    never = lab.DiscountedMDP(problem.mdp.transition, problem.mdp.reward, problem.mdp.start.flip(0), 0.99)
    nowhere = lab.occupancy(never, problem.policy)
    assert lab.concentrability(nowhere, torch.tensor([[0.0], [1.0]], dtype=torch.float64)) == pytest.approx(1)
