"""Losses of representations that predict themselves: successor features by temporal differences, orthonormality, and their relatives.

Throughout, phi are features of states ``[B, Dp]``, psi features of tasks ``[B, Ds]``, and F an ensemble of predicted sums of psi
``[M, B, Ds]`` under the policy of a task z ``[B, Ds]``, whose value is ``F . z``.

TD-JEPA: Bagatella et al. 2025, arXiv 2510.00739. Forward-backward: Touati and Ollivier 2021, arXiv 2103.07945. Laplacian: Wu et al. 2019,
arXiv 1810.04586.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import require_same_shape

RIDGE = 1e-6
"""Added to the diagonal of a covariance before it is inverted."""


def on_sphere(x: Tensor) -> Tensor:
    """``sqrt(D) x / |x|``: rows ``[..., D]`` on the sphere whose coordinates have a mean square of 1."""
    return math.sqrt(x.shape[-1]) * torch.nn.functional.normalize(x, dim=-1)


def pessimistic(members: Tensor, penalty: float = 0.0) -> Tensor:
    """``mean - penalty * spread`` over an ensemble; the spread is the mean absolute difference over ordered pairs of two members.

    Args:
        members: ``[M, ...]``; a spread needs M of at least 2.
        penalty: kappa.

    Raises:
        RheostatError: a penalty on the spread of one member.
    """
    mean, count = members.mean(0), len(members)
    if not penalty:
        return mean
    if count < 2:
        raise RheostatError("One predictor has no spread: use at least two of them, or no pessimism.")
    spread = (members.unsqueeze(0) - members.unsqueeze(1)).abs().sum((0, 1)) / (count**2 - count)
    return mean - penalty * spread


@torch.no_grad()
def latent_target(features: Tensor, members: Tensor, discount: Tensor, penalty: float = 0.0) -> Tensor:
    """``y = psi(s') + gamma F(s', z, a')``, ``[B, D]``, a constant.

    Args:
        features: ``[B, D]`` of the next state.
        members: ``[M, B, D]``, predictions at the next state.
        discount: ``[B]``, 0 where the environment ended.
        penalty: see :func:`pessimistic`.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(features=features, member=members[0])
    require_same_shape(discount=discount, rows=features[:, 0])
    return features + discount.unsqueeze(-1) * pessimistic(members, penalty)


def latent_loss(members: Tensor, target: Tensor) -> Tensor:
    """``mean over M and B of |F - y|^2``, a scalar; squares are summed over features, which sets their weight beside orthonormality.

    Args:
        members: ``[M, B, D]``, carry the gradient.
        target: ``[B, D]``, a constant.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(member=members[0], target=target)
    return (members - target.detach()).square().sum(-1).mean()


def orthonormality(features: Tensor) -> Tensor:
    """``1/2 mean_{i != j} (e_i . e_j)^2 - mean_i |e_i|^2``, a scalar; least where the covariance of features is the identity.

    Args:
        features: ``[B, D]`` of at least two rows, carry the gradient.

    Raises:
        RheostatError: one row, which has no pair.
    """
    count = len(features)
    if count < 2:
        raise RheostatError("Orthonormality is about pairs of rows, and there is one row: raise batch_size.")
    products = features @ features.T
    between = products.square().sum() - products.diagonal().square().sum()
    return 0.5 * between / (count**2 - count) - products.diagonal().mean()


def forward_backward_loss(forward: Tensor, backward: Tensor, target: Tensor, discount: Tensor) -> Tensor:
    """``sum_M [1/2 mean_{i != j} d_ij^2 - mean_i d_ii]`` of the residual ``d_ij = F_i . B_j - gamma_i y_ij`` of the successor measure.

    Args:
        forward: F, ``[M, B, D]``, carries the gradient.
        backward: B of the next states, ``[B, D]``, carries the gradient.
        target: ``[B, B]`` the ensemble's measure from each next state (row) to each of them (column), a constant.
        discount: ``[B]``.

    Returns:
        A scalar.

    Raises:
        RheostatError: one row, which has no pair.
    """
    count = len(backward)
    if count < 2:
        raise RheostatError("The loss of forward and backward maps is about pairs of rows, and there is one row: raise batch_size.")
    residual = forward @ backward.T - (discount.unsqueeze(-1) * target).detach()
    diagonal = residual.diagonal(dim1=-2, dim2=-1)
    between = residual.square().sum() - diagonal.square().sum()
    return 0.5 * between / (count**2 - count) - diagonal.mean(-1).sum()


def laplacian_loss(features: Tensor, following: Tensor, weight: float = 1.0) -> Tensor:
    """``mean (psi(s) - psi(s'))^2 + 2 weight * orthonormality(psi(s))``, a scalar: neighbours are alike, and features differ.

    Args:
        features, following: ``[B, D]`` of states and of those after them; both carry the gradient.
        weight: of orthonormality.

    Raises:
        RheostatError: different shapes, or one row.
    """
    require_same_shape(features=features, following=following)
    return (features - following).square().mean() + 2 * weight * orthonormality(features)


def task_actor_loss(values: Tensor, action: Tensor, data_action: Tensor, *, imitation: float = 0.0, penalty: float = 0.0) -> Tensor:
    """``-mean Q``; with imitation ``-mean Q / mean |Q| + imitation * mean (a - a_data)^2``, a scalar.

    Args:
        values: ``[M, B]``, ``F . z`` of every member; carry the gradient through the action.
        action: ``[B, A]``, carries the gradient.
        data_action: ``[B, A]``, what is imitated, a constant.
        imitation: weight of the squared distance, a mean over rows and dimensions.
        penalty: see :func:`pessimistic`.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(action=action, data_action=data_action)
    loss = -pessimistic(values, penalty).mean()
    if not imitation:
        return loss
    return loss / values.detach().abs().mean() + imitation * (action - data_action.detach()).square().mean()


def moved_covariance(covariance: Tensor, features: Tensor, rate: float) -> Tensor:
    """``(1 - rate) C + rate psi^T psi / B``, ``[D, D]``, a constant.

    Args:
        covariance: ``[D, D]``.
        features: ``[B, D]``.
        rate: between 0 and 1.
    """
    features = features.detach()
    return torch.lerp(covariance, features.T @ features / len(features), rate)


def mixed_tasks(uniform: Tensor, goals: Tensor, is_goal: Tensor, covariance: Tensor | None = None) -> Tensor:
    """Tasks that policies are trained on: directions, and goals among the data, on the sphere ``[B, D]``, constants.

    Args:
        uniform: ``[B, D]`` standard normal.
        goals: ``[B, D]`` features of states.
        is_goal: bool ``[B]``.
        covariance: ``[D, D]``; goals are multiplied by its inverse (OGBench), None leaves them.
    """
    goals = goals.detach()
    if covariance is not None:
        goals = goals @ torch.linalg.inv(covariance + RIDGE * torch.eye(len(covariance), dtype=covariance.dtype))
    return on_sphere(torch.where(is_goal.unsqueeze(-1), goals, uniform))


@torch.no_grad()
def task_of_rewards(features: Tensor, reward: Tensor, *, least_squares: bool = True, normalise: bool = True) -> Tensor:
    """The task z whose reward ``psi . z`` is nearest to a reward, ``[D]``; its scale is lost on the sphere.

    Args:
        features: ``[n, D]`` of the states at which the rewards are paid.
        reward: ``[n]``.
        least_squares: the solution of ``psi z = r``; else ``mean r psi``, which is the same where the covariance is the identity.
        normalise: whether z lies on the sphere, as in training.
    """
    require_same_shape(reward=reward, rows=features[:, 0])
    if least_squares:  # gelsd: rows may span fewer dimensions than there are features
        task = torch.linalg.lstsq(features.double(), reward.double().unsqueeze(-1), driver="gelsd").solution.squeeze(-1)
    else:
        task = features.double().T @ reward.double() / len(features)
    task = task.to(features.dtype)
    return on_sphere(task) if normalise else task


def effective_rank(features: Tensor) -> float:
    """Number of directions that features use: the exponential of the entropy of the shares of the eigenvalues of their second moment.

    Args:
        features: ``[n, D]``.

    Roy and Vetterli 2007. Between 1 and D.
    """
    moment = features.double().T @ features.double() / len(features)
    values = torch.linalg.eigvalsh(moment).clamp_min(0)
    shares = values / values.sum()
    return float((-(torch.special.xlogy(shares, shares)).sum()).exp())
