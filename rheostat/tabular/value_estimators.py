"""Estimators of a policy's value from a fixed data set: minimax, fitted Q evaluation, Bellman residual and least-squares TD.

With the empirical loss ``L(g; f) = mean (g(s, a) - r - gamma f(s', pi))^2``::

    minimax   argmin_f max_g [L(f; f) - L(g; f)]       population bracket: BE(f)^2 - CG(f)^2
    FQE       f_{k+1} = argmin_g L(g; f_k)
    residual  argmin_f L(f; f)                         biased by the variance of transitions: population E Var is added to BE^2
    LSTD      (Phi^T D Phi - gamma Phi^T D Phi') w = Phi^T D r

Sources: minimax, Antos et al. 2008 and Zanette 2022 (arXiv 2211.05311); fitted Q evaluation, Le et al. 2019 (arXiv 1903.08738); LSTD,
Bradtke and Barto 1996. For linear classes all four need the same moments (:class:`Moments`), of data or of the population. There the
bracket is ``(b - M w)^T Sigma^-1 (b - M w)``, so minimax and LSTD agree wherever LSTD exists: where beta is below 1. Fitted Q evaluation
converges under another condition, a spectral radius below 1.

The neural form of fitted Q evaluation, for data sets of real tasks, is :mod:`rheostat.analysis.fitted_q`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tabular.bellman import Prediction, expected, next_features
from rheostat.tabular.mdp import require_shape

SINGULAR = 1e-12
"""Ratio of the smallest to the largest singular value below which a matrix counts as singular."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """A fixed data set of n steps."""

    state: Tensor
    """int64 ``[n]``."""
    action: Tensor
    """int64 ``[n]``."""
    reward: Tensor
    """float64 ``[n]``."""
    next_state: Tensor
    """int64 ``[n]``."""
    ended: Tensor | None = None
    """bool ``[n]``, steps after which nothing comes; None: no step."""

    def __post_init__(self) -> None:
        if not len(self.state):
            raise RheostatError("The data set is empty: an estimator needs at least one transition.")

    def bootstrap(self, following: Tensor) -> Tensor:
        """Values of the next states, 0 after the end: ``[..., S]`` to ``[..., n]``."""
        found = following[..., self.next_state]
        return found if self.ended is None else found.masked_fill(self.ended, 0.0)


def sample_transitions(problem: Prediction, number: int, *, noise: float = 0.5, generator: torch.Generator) -> Transitions:
    """Independent steps ``[n]`` with states and actions from mu.

    Args:
        problem: process and data distribution.
        number: n, at least 1.
        noise: standard deviation of a Gaussian on every reward.
        generator: draws everything.
    """
    states, actions = problem.mdp.shape
    pair = torch.multinomial(problem.data.flatten(), number, replacement=True, generator=generator)
    state, action = pair // actions, pair % actions
    move = problem.mdp.transition[state, action]
    whole = torch.cat([move, (1 - move.sum(-1, keepdim=True)).clamp(min=0.0)], -1)
    following = torch.multinomial(whole, 1, generator=generator)[:, 0]
    ended = following == states
    reward = problem.mdp.reward[state, action] + noise * torch.randn(number, generator=generator, dtype=torch.float64)
    return Transitions(state, action, reward, following.masked_fill(ended, 0), ended)


# --- classes that are lists --------------------------------------------------------------------------------------------------------------


class Minimax(NamedTuple):
    """The minimax estimate of a class that is a list."""

    member: int
    """Index of the estimate; of equal ones the first."""
    objective: Tensor
    """float64 ``[N]``, ``max_g [L(f; f) - L(g; f)]`` of every member; at least 0."""


def empirical_losses(data: Transitions, policy: Tensor, gamma: float, members: Tensor) -> Tensor:
    """``L(g; f)`` of every pair of a class.

    Args:
        data: n transitions.
        policy: float64 ``[S, A]``, the policy to evaluate.
        gamma: discount.
        members: float64 ``[N, S, A]``.

    Returns:
        float64 ``[N, N]``, ``[g, f]``.

    Raises:
        RheostatError: an empty class.
    """
    if not len(members):
        raise RheostatError("The class of functions is empty: give it at least one member.")
    target = data.reward + gamma * data.bootstrap(expected(policy, members))
    predicted = members[:, data.state, data.action]
    return (predicted[:, None] - target[None]).square().mean(-1)


def minimax_estimate(losses: Tensor) -> Minimax:
    """The member with the least excess over the best regression onto its own targets; losses ``[N, N]`` from :func:`empirical_losses`."""
    objective = losses.diagonal() - losses.amin(0)
    return Minimax(int(objective.argmin()), objective)


def residual_estimate(losses: Tensor) -> int:
    """The member with the least empirical Bellman residual, biased where transitions are random; losses ``[N, N]``."""
    return int(losses.diagonal().argmin())


def fitted_q_estimate(losses: Tensor, iterations: int, start: int = 0) -> list[int]:
    """The member after every iteration of fitted Q evaluation, from ``start`` on: ``iterations + 1`` indices; losses ``[N, N]``."""
    best, found = losses.argmin(0), [start]
    for _ in range(iterations):
        found.append(int(best[found[-1]]))
    return found


# --- linear classes ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moments:
    """What linear estimators need to know of data: means over the data of products of features and rewards. All float64."""

    gram: Tensor
    """``E phi phi^T``, ``[d, d]``, called Sigma."""
    cross: Tensor
    """``E phi phi'^T``, ``[d, d]``, with ``phi' = phi(s', pi)``."""
    reward: Tensor
    """``E phi r``, ``[d]``, called b."""
    next_gram: Tensor
    """``E phi' phi'^T``, ``[d, d]``, of sampled next states."""
    next_reward: Tensor
    """``E phi' r``, ``[d]``."""
    gamma: float

    @classmethod
    def population(cls, problem: Prediction, features: Tensor) -> Moments:
        """The exact means; features float64 ``[S, A, d]``. The reward of a step is independent of its next state."""
        mdp, mu = problem.mdp, problem.data
        following = next_features(problem, features)
        ahead = torch.einsum("tb,tbd->td", problem.policy, features)
        return cls(
            gram=torch.einsum("sa,sad,sae->de", mu, features, features),
            cross=torch.einsum("sa,sad,sae->de", mu, features, following),
            reward=torch.einsum("sa,sa,sad->d", mu, mdp.reward, features),
            next_gram=torch.einsum("sa,sat,td,te->de", mu, mdp.transition, ahead, ahead),
            next_reward=torch.einsum("sa,sa,sad->d", mu, mdp.reward, following),
            gamma=mdp.gamma,
        )

    @classmethod
    def of_data(cls, data: Transitions, policy: Tensor, gamma: float, features: Tensor) -> Moments:
        """The means over a data set; policy float64 ``[S, A]`` and features ``[S, A, d]``.

        Raises:
            RheostatError: features of another shape.
        """
        if features.ndim != 3:
            raise RheostatError(f"features have the shape {list(features.shape)}, and [S, A, d] is needed.")
        require_shape("features", features, (*policy.shape, features.shape[-1]))
        phi = features[data.state, data.action]
        ahead = data.bootstrap(torch.einsum("sa,sad->ds", policy, features)).T
        n = len(phi)
        return cls(phi.T @ phi / n, phi.T @ ahead / n, phi.T @ data.reward / n, ahead.T @ ahead / n, ahead.T @ data.reward / n, gamma)

    @property
    def matrix(self) -> Tensor:
        """LSTD's ``M = Sigma - gamma E phi phi'^T``, ``[d, d]``."""
        return self.gram - self.gamma * self.cross

    @property
    def residual_gram(self) -> Tensor:
        """``E (phi - gamma phi')(phi - gamma phi')^T``, ``[d, d]``, of sampled next states."""
        return self.gram - self.gamma * (self.cross + self.cross.T) + self.gamma**2 * self.next_gram

    @property
    def incompleteness(self) -> float:
        """Plug-in of beta: ``1 - beta^2`` is the least ``w^T M^T Sigma^-1 M w / w^T R w`` with R the :attr:`residual_gram`.

        It equals :func:`~rheostat.tabular.bellman.linear_incompleteness` on the population of a deterministic process whose true value
        lies in the span; else the variance of transitions adds to R, and it is larger.
        """
        sizes, axes = torch.linalg.eigh(self.residual_gram)
        kept = sizes > SINGULAR * sizes.max()
        whiten = axes[:, kept] / sizes[kept].sqrt()
        bracket = self.matrix.T @ torch.linalg.pinv(self.gram, hermitian=True) @ self.matrix
        least = float(torch.linalg.eigvalsh(whiten.T @ bracket @ whiten).min())
        return min(max(0.0, 1 - least), 1.0) ** 0.5


def lstd(moments: Moments) -> Tensor:
    """The fixed point of the projected Bellman operator, weights float64 ``[d]``: exactly the true value where the span holds it and the
    moments are the population's.

    Raises:
        RheostatError: the matrix is singular; the message says beta.
    """
    sizes = torch.linalg.svdvals(moments.matrix)
    if float(sizes.min()) <= SINGULAR * max(float(sizes.max()), float(moments.gram.abs().max())):
        raise RheostatError(
            f"The matrix of LSTD is singular and has no fixed point: the incompleteness factor beta is {moments.incompleteness:.6g}. Where "
            "beta is 1, other features or another data distribution are needed; where it is below 1, features are collinear on the data."
        )
    return torch.linalg.solve(moments.matrix, moments.reward)


def linear_minimax(moments: Moments) -> Tensor:
    """The minimax estimate, weights float64 ``[d]``; of equal ones the shortest. It is LSTD's wherever that exists."""
    sizes, axes = torch.linalg.eigh(moments.gram)
    kept = sizes > SINGULAR * sizes.max()
    root = axes[:, kept] / sizes[kept].sqrt()  # [d, k], whitens the gram
    return torch.linalg.lstsq(root.T @ moments.matrix, (root.T @ moments.reward)[:, None], driver="gelsd").solution[:, 0]


def linear_minimax_objective(moments: Moments, weights: Tensor) -> float:
    """``(b - M w)^T Sigma^-1 (b - M w)``; weights float64 ``[d]``."""
    left = moments.reward - moments.matrix @ weights
    return float(left @ torch.linalg.pinv(moments.gram, hermitian=True) @ left)


def linear_residual(moments: Moments) -> Tensor:
    """The Bellman residual estimate, weights float64 ``[d]``; biased where transitions are random, whatever the number of samples."""
    right = moments.reward - moments.gamma * moments.next_reward
    return torch.linalg.lstsq(moments.residual_gram, right[:, None], driver="gelsd").solution[:, 0]


def linear_fitted_q(moments: Moments, iterations: int, start: Tensor | None = None) -> Tensor:
    """Fitted Q evaluation.

    Args:
        moments: of data or population, with an invertible gram matrix.
        iterations: K.
        start: weights float64 ``[d]``; None begins at 0.

    Returns:
        Weights after every iteration, float64 ``[K, d]``; they grow without bound where :func:`fitted_q_radius` is above 1.

    Raises:
        RheostatError: features that are collinear on the data.
    """
    _require_invertible(moments.gram)
    weights, found = torch.zeros_like(moments.reward) if start is None else start, []
    for _ in range(iterations):
        weights = torch.linalg.solve(moments.gram, moments.reward + moments.gamma * moments.cross @ weights)
        found.append(weights)
    return torch.stack(found) if found else moments.reward.new_zeros(0, len(weights))


def fitted_q_radius(moments: Moments) -> float:
    """The spectral radius of ``gamma Sigma^-1 E phi phi'^T``: fitted Q evaluation converges from everywhere exactly where it is below 1.

    Raises:
        RheostatError: features that are collinear on the data.
    """
    _require_invertible(moments.gram)
    return float(torch.linalg.eigvals(moments.gamma * torch.linalg.solve(moments.gram, moments.cross)).abs().max())


def _require_invertible(gram: Tensor) -> None:
    sizes = torch.linalg.svdvals(gram)
    if float(sizes.min()) <= SINGULAR * float(sizes.max()):
        raise RheostatError("The features are collinear on the data, so that a regression on them has no single answer: leave some out.")
