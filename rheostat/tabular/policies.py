"""Classes of deterministic policies in layers: their enumeration, their values, and their spanning capacity.

A class is an int64 tensor ``[N, H, S]``: the action of every policy in every state of every layer.

    C_h(Pi; M) = #{(s, a) in layer h that some policy reaches in the deterministic process M}        C(Pi) = max_h max_M C_h(Pi; M)

The spanning capacity lies between 1 and ``min(|Pi|, A^H, S A)`` and does not shrink when a class grows. Source: Jia et al. 2023
(arXiv 2310.06113), Li 2025 (arXiv 2506.01884). M ranges over first states too. What a process does to a class is to send
every policy to one state per layer, so the search is over these assignments, not over transition tables: states merge, and a recursion
over branches would count them twice.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tabular.mdp import LayeredMDP

LIMIT = 100_000
"""Most policies that are enumerated."""
ASSIGNMENTS = 200_000
"""Most assignments of policies to states that the search for the spanning capacity looks at."""


def all_policies(horizon: int, states: int, actions: int, *, limit: int = LIMIT) -> Tensor:
    """Every deterministic policy, int64 ``[N, H, S]`` with ``N = A^(H S)``.

    Args:
        horizon, states, actions: each at least 1.
        limit: most policies.

    Raises:
        RheostatError: more than the limit; the message says how many.
    """
    number = actions ** (horizon * states)
    if number > limit:
        raise RheostatError(
            f"There are {_many(number)} deterministic policies with {horizon} layers, {states} states and {actions} actions, more than the "
            f"{limit:,} that can be listed: give a smaller class."
        )
    index = torch.arange(number)[:, None]
    digits = actions ** torch.arange(horizon * states - 1, -1, -1)
    return (index // digits % actions).view(number, horizon, states)


def require_class(policies: Tensor, mdp: LayeredMDP | None = None, *, limit: int = LIMIT) -> None:
    """Refuse what is no class of policies, or one that is too large to enumerate.

    Raises:
        RheostatError: an empty class, one above the limit (with both numbers), or another shape than the process has.
    """
    if policies.ndim != 3 or policies.dtype != torch.int64:
        raise RheostatError(f"A class of policies is an int64 tensor [N, H, S], not {policies.dtype} {list(policies.shape)}.")
    if not policies.numel():
        raise RheostatError("The class of policies is empty: give it at least one policy.")
    if len(policies) > limit:
        raise RheostatError(
            f"The class has {len(policies):,} policies, more than the {limit:,} that can be enumerated: give a smaller one."
        )
    if mdp is not None and tuple(policies.shape[1:]) != mdp.shape[:2]:
        raise RheostatError(
            f"The policies are for {policies.shape[1]} layers of {policies.shape[2]} states, and the process has {mdp.shape[0]} of "
            f"{mdp.shape[1]}."
        )
    if int(policies.min()) < 0 or (mdp is not None and int(policies.max()) >= mdp.shape[2]):
        raise RheostatError(f"A policy takes the action {int(policies.max())} or {int(policies.min())}, which the process does not have.")


def policy_values(mdp: LayeredMDP, policies: Tensor) -> Tensor:
    """The exact value of every policy, float64 ``[N]``.

    Args:
        mdp: in layers.
        policies: int64 ``[N, H, S]``.

    Raises:
        RheostatError: see :func:`require_class`.
    """
    require_class(policies, mdp)
    return layer_values(mdp, policies)[:, 0] @ mdp.start


def layer_values(mdp: LayeredMDP, policies: Tensor) -> Tensor:
    """V of every policy in every layer, float64 ``[N, H, S]``; policies int64 ``[N, H, S]``."""
    horizon, states, _ = mdp.shape
    ahead, found = torch.zeros(len(policies), states, dtype=torch.float64), []
    for h in reversed(range(horizon)):
        q = layer_backup(mdp, h, ahead)
        ahead = q.gather(-1, policies[:, h, :, None])[..., 0]
        found.append(ahead)
    return torch.stack(found[::-1], 1)


def layer_backup(mdp: LayeredMDP, h: int, ahead: Tensor) -> Tensor:
    """``r_h + P_h V_{h+1}``: float64 ``[..., S]`` to ``[..., S, A]``; nothing follows the last layer."""
    reward = mdp.reward[h]
    if h == mdp.shape[0] - 1:
        return reward.expand(*ahead.shape[:-1], *reward.shape)
    return reward + torch.einsum("sat,...t->...sa", mdp.transition[h], ahead)


def optimal_policy(mdp: LayeredMDP) -> Tensor:
    """The best of all deterministic policies by dynamic programming, int64 ``[1, H, S]``; of equal actions the first."""
    horizon, states, _ = mdp.shape
    ahead, found = torch.zeros(states, dtype=torch.float64), []
    for h in reversed(range(horizon)):
        ahead, action = layer_backup(mdp, h, ahead).max(-1)
        found.append(action)
    return torch.stack(found[::-1])[None]


def consistent(policies: Tensor, states: Tensor, actions: Tensor, layers: Tensor | None = None) -> Tensor:
    """Which policies take every action of a trajectory.

    Args:
        policies: int64 ``[N, H, S]``.
        states, actions: int64 ``[B, T]``, trajectories.
        layers: int64 ``[T]``, layers of the steps; None begins at layer 0.

    Returns:
        bool ``[N, B]``.
    """
    layers = torch.arange(states.shape[-1]) if layers is None else layers
    return (policies[:, layers, states] == actions).all(-1)


def spanning_bound(policies: Tensor, actions: int) -> int:
    """``min(|Pi|, A^H, S A)``, which the spanning capacity never exceeds; policies int64 ``[N, H, S]``.

    Raises:
        RheostatError: see :func:`require_class`.
    """
    require_class(policies)
    return min(len(policies.unique(dim=0)), actions ** policies.shape[1], policies.shape[2] * actions)


def spanning_capacity(policies: Tensor, *, limit: int = ASSIGNMENTS) -> int:
    """``C(Pi)``, by exhaustive search; for larger classes there is :func:`spanning_bound`.

    Args:
        policies: int64 ``[N, H, S]``.
        limit: most assignments of policies to states that are looked at.

    Raises:
        RheostatError: an empty class, or one that needs more assignments than the limit; the message says how many were found.
    """
    require_class(policies)
    distinct = policies.unique(dim=0)
    _, horizon, states = distinct.shape
    tables = distinct.tolist()
    assignments = {(state,) * len(tables) for state in range(states)}
    best = 1
    for h in range(horizon):
        following: set[tuple[int, ...]] = set()
        for assignment in assignments:
            pairs = [(state, table[h][state]) for state, table in zip(assignment, tables, strict=True)]
            reached = sorted(set(pairs))
            best = max(best, len(reached))
            if h == horizon - 1:
                continue
            if states ** len(reached) > limit or len(following) > limit:
                found = max(states ** len(reached), len(following))
                bound = spanning_bound(policies, 1 + int(policies.max()))
                raise RheostatError(
                    f"The spanning capacity of this class needs at least {_many(found)} assignments of its {len(tables)} policies to "
                    f"states, more than the {limit:,} that are searched: take a smaller class, or the bound {bound}."
                )
            for targets in product(range(states), repeat=len(reached)):
                move = dict(zip(reached, targets, strict=True))
                following.add(tuple(move[pair] for pair in pairs))
        assignments = following
    return best


def _many(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"about 10^{len(str(number)) - 1}"
