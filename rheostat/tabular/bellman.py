"""What a policy is worth, and how a class of functions stands to its Bellman operator.

    (T f)(s, a) = r(s, a) + gamma E_{s'} f(s', pi)                    f(s, pi) = sum_a pi(a|s) f(s, a)
    BE(f)   = ||f - T f||_mu                                          Bellman error
    CG(f)   = min_{g in F} ||g - T f||_mu  <=  BE(f)                  completeness gap
    beta    = max_{f in F, BE(f) > 0} CG(f) / BE(f)  in [0, 1]        incompleteness factor
    IBE     = max_f CG(f)        local IBE(rho) = max {CG(f): BE(f) <= rho}
    J(f) - J(pi) = E_{d^pi}[f - T f] / (1 - gamma)                    telescoping, exact

Source: Zanette 2022 (arXiv 2211.05311). The abstract names local inherent Bellman errors and the amplification of the statistical error;
beta and the local error as they stand here are a reconstruction from it, and every relation above is verified by tests.

For a linear class there is nothing to search: ``CG(f)`` is also the distance of ``f - T f`` from the span, because f lies in it. So beta is
the sine of the largest principal angle between the space of Bellman residuals and the span of the features, under mu. It is 1 exactly
where some residual is orthogonal to all features, which is where the matrix of LSTD is singular.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tabular.mdp import DiscountedMDP, require_distribution, require_shape
from rheostat.tabular.occupancy import occupancy, require_policy

ZERO = 1e-12
"""Bellman error that counts as none: there beta would be 0 / 0."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction problem: the value of a policy from data of a distribution.

    Raises:
        RheostatError: a policy or data that are no distributions of this process.
    """

    mdp: DiscountedMDP
    policy: Tensor
    """float64 ``[S, A]``, the policy pi to predict."""
    data: Tensor
    """float64 ``[S, A]``, the distribution mu of states and actions in the data; all of it sums to 1."""

    def __post_init__(self) -> None:
        require_policy(self.mdp, self.policy)
        require_shape("data", self.data, self.mdp.shape)
        require_distribution("data", self.data.flatten())


# --- values ------------------------------------------------------------------------------------------------------------------------------


def expected(policy: Tensor, f: Tensor) -> Tensor:
    """``f(s, pi)``: float64 ``[..., S, A]`` to ``[..., S]``."""
    return (policy * f).sum(-1)


def backup(mdp: DiscountedMDP, policy: Tensor, f: Tensor) -> Tensor:
    """The Bellman operator of a policy.

    Args:
        mdp: with or without a discount.
        policy: float64 ``[S, A]``.
        f: float64 ``[..., S, A]``.

    Returns:
        ``T f``, float64 ``[..., S, A]``.
    """
    return mdp.reward + mdp.gamma * torch.einsum("sat,...t->...sa", mdp.transition, expected(policy, f))


def state_values(mdp: DiscountedMDP, policy: Tensor) -> Tensor:
    """V of a policy, float64 ``[S]``, by one linear solve.

    Args:
        mdp: with a discount, or one whose episodes end.
        policy: float64 ``[S, A]``.

    Raises:
        RheostatError: no stochastic policy, or a discount of 1 under which this policy never ends.
    """
    require_policy(mdp, policy)
    move = torch.einsum("sa,sat->st", policy, mdp.transition)
    matrix = torch.eye(len(move), dtype=torch.float64) - mdp.gamma * move
    solution, singular = torch.linalg.solve_ex(matrix, (policy * mdp.reward).sum(-1))
    if int(singular) or not bool(solution.isfinite().all()):
        raise RheostatError("The policy never ends its episodes, so without a discount it has no value: take gamma below 1.")
    return solution


def action_values(mdp: DiscountedMDP, policy: Tensor) -> Tensor:
    """Q of a policy, float64 ``[S, A]``; arguments and refusals of :func:`state_values`."""
    return mdp.reward + mdp.gamma * mdp.transition @ state_values(mdp, policy)


def policy_value(mdp: DiscountedMDP, policy: Tensor) -> float:
    """``J = E_rho V``, of a policy float64 ``[S, A]``."""
    return float(mdp.start @ state_values(mdp, policy))


def predicted_value(problem: Prediction, f: Tensor) -> float:
    """``J(f) = E_rho f(s, pi)``; ``f`` float64 ``[S, A]``."""
    return float(problem.mdp.start @ expected(problem.policy, f))


def prediction_error(problem: Prediction, f: Tensor) -> float:
    """``J(f) - J(pi)``, from the exact value; ``f`` float64 ``[S, A]``."""
    return predicted_value(problem, f) - policy_value(problem.mdp, problem.policy)


def telescoped_error(problem: Prediction, f: Tensor) -> float:
    """The same by telescoping, ``E_{d^pi}[f - T f] / (1 - gamma)``, without the exact value; ``f`` float64 ``[S, A]``."""
    d = occupancy(problem.mdp, problem.policy)
    return float((d * (f - backup(problem.mdp, problem.policy, f))).sum()) / (1 - problem.mdp.gamma)


# --- Bellman errors ----------------------------------------------------------------------------------------------------------------------


def data_norm(g: Tensor, data: Tensor) -> Tensor:
    """``||g||_mu``: float64 ``[..., S, A]`` to ``[...]``."""
    return (data * g.square()).sum((-1, -2)).sqrt()


def bellman_error(problem: Prediction, f: Tensor) -> Tensor:
    """``BE(f)``: float64 ``[..., S, A]`` to ``[...]``."""
    return data_norm(f - backup(problem.mdp, problem.policy, f), problem.data)


def completeness_gap(problem: Prediction, f: Tensor, members: Tensor) -> Tensor:
    """``CG(f)`` in a class that is a list.

    Args:
        problem: policy and data.
        f: float64 ``[..., S, A]``.
        members: float64 ``[N, S, A]``, the class F.

    Returns:
        float64 ``[...]``.

    Raises:
        RheostatError: an empty class.
    """
    _require_members(members)
    target = backup(problem.mdp, problem.policy, f)
    return data_norm(members - target[..., None, :, :], problem.data).amin(-1)


def incompleteness(problem: Prediction, members: Tensor) -> float:
    """``beta`` of a class that is a list, float64 ``[N, S, A]``; 0 where every member is its own backup.

    Raises:
        RheostatError: an empty class.
    """
    error, gap = bellman_error(problem, members), completeness_gap(problem, members, members)
    return float(torch.where(error > ZERO, gap / error.clamp(min=ZERO), 0.0).max())


def inherent_bellman_error(problem: Prediction, members: Tensor, radius: float | None = None) -> float:
    """The largest completeness gap of a class that is a list: of all members, or of those within a radius of realizing the value.

    Args:
        problem: policy and data.
        members: float64 ``[N, S, A]``.
        radius: rho of the local error, ``BE(f) <= rho``; None takes every member.

    Returns:
        IBE, or the local IBE; 0 where no member lies within the radius.

    Raises:
        RheostatError: an empty class.
    """
    error, gap = bellman_error(problem, members), completeness_gap(problem, members, members)
    return float(torch.where(error <= (torch.inf if radius is None else radius), gap, 0.0).max())


def class_concentrability(problem: Prediction, members: Tensor) -> float:
    """``C_F = max_f (E_{d^pi}[f - T f])^2 / BE(f)^2``, at most ``C_2`` and ``C_inf``; members with no Bellman error are left out.

    Args:
        problem: policy and data.
        members: float64 ``[N, S, A]``, or one function ``[S, A]``.
    """
    d = occupancy(problem.mdp, problem.policy)
    mean = (d * (members - backup(problem.mdp, problem.policy, members))).sum((-1, -2))
    error = bellman_error(problem, members)
    return float(torch.where(error > ZERO, mean.square() / error.clamp(min=ZERO).square(), 0.0).max())


def minimax_value(problem: Prediction, f: Tensor, members: Tensor) -> Tensor:
    """The population objective of the minimax estimator, ``BE(f)^2 - CG(f)^2``, at least ``(1 - beta^2) BE(f)^2``: ``[..., S, A]`` to
    ``[...]``."""
    return bellman_error(problem, f).square() - completeness_gap(problem, f, members).square()


def prediction_bound(bellman: float, concentrability: float, gamma: float) -> float:
    """``|J(f) - J(pi)| <= sqrt(C) BE(f) / (1 - gamma)``, true for C_F, C_2 and C_inf.

    Args:
        bellman: ``BE(f)``.
        concentrability: any of the three.
        gamma: discount below 1.
    """
    return concentrability**0.5 * bellman / (1 - gamma)


# --- linear classes ----------------------------------------------------------------------------------------------------------------------


def linear_values(features: Tensor, weights: Tensor) -> Tensor:
    """``f = Phi w``: features float64 ``[S, A, d]`` and weights ``[..., d]`` to ``[..., S, A]``."""
    return torch.einsum("sad,...d->...sa", features, weights)


def projected(g: Tensor, features: Tensor, data: Tensor) -> Tensor:
    """The function in the span of the features that is nearest under mu, float64 ``[S, A]``.

    Args:
        g: float64 ``[S, A]``.
        features: float64 ``[S, A, d]``.
        data: float64 ``[S, A]``, mu.
    """
    root = data.sqrt()
    scaled = (features * root[..., None]).flatten(0, 1)
    weights = torch.linalg.lstsq(scaled, (g * root).flatten()[:, None], driver="gelsd").solution[:, 0]
    return linear_values(features, weights)


def linear_completeness_gap(problem: Prediction, f: Tensor, features: Tensor) -> float:
    """``CG(f)`` in the span of the features; ``f`` float64 ``[S, A]``, features ``[S, A, d]``."""
    target = backup(problem.mdp, problem.policy, f)
    return float(data_norm(target - projected(target, features, problem.data), problem.data))


def linear_incompleteness(problem: Prediction, features: Tensor) -> float:
    """``beta`` of the span of the features, whether or not it holds the true value.

    Args:
        problem: policy and data.
        features: float64 ``[S, A, d]``; mu need not reach every state.

    Returns:
        The sine of the largest principal angle between the Bellman residuals and the span; 0 for tabular features, 1 where the matrix of
        LSTD is singular.

    Raises:
        RheostatError: features of another shape.
    """
    residuals, span = _bases(problem, features)
    left_out = residuals - span @ (span.T @ residuals)
    return min(float(torch.linalg.matrix_norm(left_out, 2)), 1.0) if residuals.shape[1] else 0.0


def linear_inherent_bellman_error(problem: Prediction, features: Tensor, radius: float) -> float:
    """The largest completeness gap of the functions of a span within a distance of the true value, which the span holds.

    Args:
        problem: policy and data.
        features: float64 ``[S, A, d]``.
        radius: largest ``||f - Q||_mu``; a span has no largest gap without one.

    Returns:
        IBE, proportional to the radius.
    """
    root = problem.data.sqrt()[..., None]
    scaled = (features * root).flatten(0, 1)
    left, sizes, right = torch.linalg.svd(scaled, full_matrices=False)
    kept = sizes > 1e-11 * sizes.max()
    whiten = right[kept].T / sizes[kept]  # [d, k]: weights of functions of norm 1
    ahead = problem.mdp.gamma * (next_features(problem, features) * root).flatten(0, 1) @ whiten
    span = left[:, kept]
    return radius * float(torch.linalg.matrix_norm(ahead - span @ (span.T @ ahead), 2))


def linear_class_concentrability(problem: Prediction, features: Tensor) -> float:
    """``C_F`` of a span that holds the true value: ``g^T K^-1 g`` with ``g = E_d[phi - gamma phi']`` and K the Gram matrix of these
    differences under mu.

    Args:
        problem: policy and data.
        features: float64 ``[S, A, d]``.
    """
    difference = residual_features(problem, features)
    g = torch.einsum("sa,sad->d", occupancy(problem.mdp, problem.policy), difference)
    gram = torch.einsum("sa,sad,sae->de", problem.data, difference, difference)
    return float(g @ torch.linalg.pinv(gram, hermitian=True) @ g)


def residual_features(problem: Prediction, features: Tensor) -> Tensor:
    """``phi(s, a) - gamma E phi(s', pi)``, float64 ``[S, A, d]``: the Bellman residual of ``Phi w`` is this times w, minus the reward."""
    return features - problem.mdp.gamma * next_features(problem, features)


def next_features(problem: Prediction, features: Tensor) -> Tensor:
    """``E phi(s', pi)`` after every state and action, float64 ``[S, A, d]``.

    Raises:
        RheostatError: features of another shape.
    """
    if features.ndim != 3:
        raise RheostatError(f"features have the shape {list(features.shape)}, and [S, A, d] is needed.")
    require_shape("features", features, (*problem.mdp.shape, features.shape[-1]))
    return torch.einsum("sat,tb,tbd->sad", problem.mdp.transition, problem.policy, features)


def _bases(problem: Prediction, features: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal bases of the Bellman residuals and of the span, ``[SA, k]`` each, scaled by the root of mu."""
    root = problem.data.sqrt()[..., None]
    residuals = torch.cat([residual_features(problem, features), -problem.mdp.reward[..., None]], -1)
    return _orthonormal((residuals * root).flatten(0, 1)), _orthonormal((features * root).flatten(0, 1))


def _orthonormal(columns: Tensor) -> Tensor:
    left, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > 1e-11 * sizes.max().clamp(min=1e-300)]


def _require_members(members: Tensor) -> None:
    if not len(members):
        raise RheostatError("The class of functions is empty: give it at least one member.")
