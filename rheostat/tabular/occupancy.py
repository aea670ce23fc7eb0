"""Where policies go, and how well a distribution covers that.

Equations, with the start distribution rho::

    d(s)   = (1 - gamma) sum_t gamma^t P(s_t = s)               discounted occupancy, normalised
    d_h(s) = P(s_h = s)                                         in layers
    C_inf  = max d / mu          C_2 = E_mu[(d / mu)^2]         concentrability; C_2 <= C_inf
    coverability = max_h sum_s max_pi d_h^pi(s)                 (Xie et al. 2022, arXiv 2210.04157)

Coverability is the smallest concentrability that any reset distribution mu can have, layer by layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tabular.mdp import DiscountedMDP, LayeredMDP, one_hot, require_distribution, require_shape

TINY = 1e-12
"""Probability below which a state counts as never reached."""


def state_occupancy(mdp: DiscountedMDP, policy: Tensor, start: Tensor | None = None) -> Tensor:
    """The normalised discounted occupancy of states; it sums to 1 where no episode ends by itself.

    Args:
        mdp: with a discount below 1.
        policy: float64 ``[S, A]``, probabilities.
        start: float64 ``[S]``; None takes the process's own. CPI's is its reset distribution.

    Returns:
        float64 ``[S]``.

    Raises:
        RheostatError: a policy or a start that is no distribution, or a discount of 1.
    """
    require_policy(mdp, policy)
    if mdp.gamma == 1:
        raise RheostatError("A discounted occupancy needs a discount below 1.")
    start = mdp.start if start is None else start
    require_shape("start", start, (mdp.shape[0],))
    require_distribution("start", start)
    move = torch.einsum("sa,sat->st", policy, mdp.transition)
    return (1 - mdp.gamma) * torch.linalg.solve(torch.eye(len(move), dtype=torch.float64) - mdp.gamma * move.T, start)


def occupancy(mdp: DiscountedMDP, policy: Tensor, start: Tensor | None = None) -> Tensor:
    """The normalised discounted occupancy of states and actions, float64 ``[S, A]``; see :func:`state_occupancy`."""
    return state_occupancy(mdp, policy, start)[:, None] * policy


def layer_occupancies(mdp: LayeredMDP, policies: Tensor) -> Tensor:
    """Where deterministic policies are at every step.

    Args:
        mdp: in layers.
        policies: int64 ``[N, H, S]``.

    Returns:
        float64 ``[N, H, S]``, probabilities; every layer sums to 1.
    """
    horizon, _, actions = mdp.shape
    here = mdp.start.expand(len(policies), -1)
    layers = [here]
    for h in range(horizon - 1):
        here = torch.einsum("ns,nsa,sat->nt", here, one_hot(policies[:, h], actions), mdp.transition[h])
        layers.append(here)
    return torch.stack(layers, 1)


def coverability(occupancies: Tensor) -> float:
    """``max_h sum_s max_pi d_h^pi(s)``, between 1 and S.

    Args:
        occupancies: float64 ``[N, H, S]``, of every policy of a class (:func:`layer_occupancies`).
    """
    return float(occupancies.amax(0).sum(-1).max())


def concentrability(occupancies: Tensor, data: Tensor) -> float:
    """``max d / mu``, at least 1.

    Args:
        occupancies: float64 ``[..., *K]``: one occupancy, or those of many policies.
        data: float64 ``[*K]``, the distribution mu that data or resets come from; its last axis (in layers: each) sums to 1.

    Raises:
        RheostatError: mu has no support where a policy goes, so that the ratio is infinite.
    """
    reached = occupancies > TINY
    require_support(occupancies, data)
    return float(torch.where(reached, occupancies / data.clamp(min=1e-300), 0.0).max())


def second_moment_concentrability(occupancy: Tensor, data: Tensor) -> float:
    """``C_2 = E_mu[(d / mu)^2]``, at most :func:`concentrability`, like which it takes its arguments and refuses.

    Args:
        occupancy: float64 ``[S, A]`` or ``[S]``.
        data: float64, of the same shape.
    """
    require_support(occupancy, data)
    return float((occupancy.square() / data.clamp(min=1e-300)).sum())


def require_support(occupancies: Tensor, data: Tensor) -> None:
    """Refuse a distribution ``[*K]`` that misses a place where one of the occupancies ``[..., *K]`` goes.

    Raises:
        RheostatError: naming the place with the most mass, and the mass.
    """
    most = occupancies.reshape(-1, *data.shape).amax(0)
    missed = torch.where(data > 0, 0.0, most)
    if float(missed.max()) > TINY:
        place = torch.unravel_index(missed.argmax(), missed.shape)
        where = ", ".join(str(int(index)) for index in place)
        raise RheostatError(
            f"The distribution has no support at [{where}], where a policy is with probability {float(missed.max()):.3g}: "
            "no number of samples says anything about it, so concentrability is infinite."
        )


def require_policy(mdp: DiscountedMDP, policy: Tensor) -> None:
    """Refuse what is no stochastic policy of this process.

    Raises:
        RheostatError: another shape, or rows that do not sum to 1.
    """
    require_shape("policy", policy, mdp.shape)
    require_distribution("policy", policy)
