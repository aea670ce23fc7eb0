"""Small processes on which theorems can be seen: chosen so that one quantity moves and the others stay."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tabular.bellman import Prediction, action_values
from rheostat.tabular.exploration import Sunflower
from rheostat.tabular.mdp import DiscountedMDP, LayeredMDP


def two_states(share: float, gamma: float = 0.99) -> tuple[Prediction, Tensor]:
    """Two states, 1 -> 2 -> 2, without reward, with the features 1 and 2 (Tsitsiklis and Van Roy 1996).

    The true value 0 lies in the span, so it is realizable; the span is not complete. Weighting the states moves beta between 0 and 1,
    while fitted Q evaluation diverges for most weightings.

    Args:
        share: of state 1 in the data, in (0, 1).
        gamma: discount.

    Returns:
        The prediction problem, and features float64 ``[2, 1, 1]``.

    Raises:
        RheostatError: a share outside of (0, 1).
    """
    if not 0 < share < 1:
        raise RheostatError(f"The share of state 1 in the data is {share}: it lies between 0 and 1, and data have both states.")
    move = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]], dtype=torch.float64)
    mdp = DiscountedMDP(move, torch.zeros(2, 1, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64), gamma)
    data = torch.tensor([[share], [1 - share]], dtype=torch.float64)
    return Prediction(mdp, torch.ones(2, 1, dtype=torch.float64), data), torch.tensor([[[1.0]], [[2.0]]], dtype=torch.float64)


def random_prediction(states: int, actions: int, gamma: float, generator: torch.Generator) -> Prediction:
    """A random process, policy and data distribution: exponential weights, normalised, and rewards uniform in [0, 1]."""

    def distribution(*shape: int) -> Tensor:
        x = torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)
        return x / x.sum(-1, keepdim=True)

    reward = torch.rand(states, actions, generator=generator, dtype=torch.float64)
    mdp = DiscountedMDP(distribution(states, actions, states), reward, distribution(states), gamma)
    return Prediction(mdp, distribution(states, actions), distribution(states * actions).view(states, actions))


def realizable_features(problem: Prediction, number: int, generator: torch.Generator) -> Tensor:
    """Features float64 ``[S, A, d]``, the first of which is the true value over its size; the others are standard normal."""
    q = action_values(problem.mdp, problem.policy)
    others = torch.randn(*q.shape, number - 1, generator=generator, dtype=torch.float64)
    return torch.cat([(q / q.abs().max().clamp(min=1e-300))[..., None], others], -1)


# --- locks -------------------------------------------------------------------------------------------------------------------------------

OPEN, LOST = 0, 1
"""States of a lock."""


def combination_lock(horizon: int, first: int, second: int) -> LayeredMDP:
    """A lock of H digits: action 0 keeps it open, but in two layers only action 1 does; what is lost stays lost.

    Args:
        horizon: H.
        first, second: the two layers, ``0 <= first < second < H``.

    Returns:
        States ``OPEN`` and ``LOST``, two actions; the right action of the last layer pays 1 where the lock is still open.

    Raises:
        RheostatError: layers outside of the lock.
    """
    if not 0 <= first < second < horizon:
        raise RheostatError(
            f"The lock has the layers 0 to {horizon - 1}, and its two digits 1 lie in {first} and {second}: first < second."
        )
    transition = torch.zeros(horizon, 2, 2, 2, dtype=torch.float64)
    transition[..., LOST] = 1.0
    reward = torch.zeros(horizon, 2, 2, dtype=torch.float64)
    for h in range(horizon):
        right = int(h in (first, second))
        transition[h, OPEN, right] = torch.tensor([1.0, 0.0], dtype=torch.float64)
    reward[-1, OPEN, int(horizon - 1 == second)] = 1.0
    return LayeredMDP(transition, reward, torch.tensor([1.0, 0.0], dtype=torch.float64))


def lock_class(horizon: int) -> Sunflower:
    """All policies that play 0 but in at most two open states: a sunflower with K = H + 1 and D = 2.

    The core plays 0, or 1 in one layer. A policy's petals are the open states in which it plays 1. No member of the core opens a lock with
    two digits 1; its best policy is in the class.

    Args:
        horizon: H, at least 2.
    """
    core = torch.zeros(horizon + 1, horizon, 2, dtype=torch.int64)
    layers = torch.arange(horizon)
    core[1 + layers, layers] = 1
    chosen = [(), *((h,) for h in range(horizon)), *((h, later) for h in range(horizon) for later in range(h + 1, horizon))]
    policies = torch.zeros(len(chosen), horizon, 2, dtype=torch.int64)
    for index, places in enumerate(chosen):
        policies[index, list(places), OPEN] = 1
    return Sunflower(policies, core, policies == 1)


# --- completeness ------------------------------------------------------------------------------------------------------------------------


def two_roads(bias: float = 0.8) -> tuple[LayeredMDP, Tensor]:
    """Two roads that a class of two policies cannot both walk well: PSDP fails on it.

    The first action chooses a road. The good road pays 1 for action 0, the poor one 1/2 for action 1, and nothing else pays. Policy 0
    takes the good road and always plays 0 on it; policy 1 takes the poor road and always plays 1. Resets are at the poor road with
    probability ``bias``. Where that is above 2/3, PSDP first prefers action 1 on both roads, and the good road then pays nothing.
    The class of all maps is complete, and PSDP finds its best member.

    Args:
        bias: in (0, 1).

    Returns:
        The process (two layers, two states, two actions) and resets float64 ``[2, 2]``.

    Raises:
        RheostatError: a share outside of (0, 1).
    """
    if not 0 < bias < 1:
        raise RheostatError(f"The share of resets at the poor road is {bias}: it lies between 0 and 1, else one road has no support.")
    transition = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    transition[:, :, 0, 0], transition[:, :, 1, 1] = 1.0, 1.0
    reward = torch.zeros(2, 2, 2, dtype=torch.float64)
    reward[1, 0, 0], reward[1, 1, 1] = 1.0, 0.5
    mdp = LayeredMDP(transition, reward, torch.tensor([1.0, 0.0], dtype=torch.float64))
    return mdp, torch.tensor([[1.0, 0.0], [1 - bias, bias]], dtype=torch.float64)


def two_roads_class() -> Tensor:
    """The two policies of :func:`two_roads`, int64 ``[2, 2, 2]``; not closed under improvement."""
    return torch.tensor([[[0, 0], [0, 0]], [[1, 1], [1, 1]]])


# --- observations ------------------------------------------------------------------------------------------------------------------------


def block_mdp(horizon: int, latents: int, observations: int, actions: int, generator: torch.Generator) -> tuple[LayeredMDP, Tensor]:
    """A process with few latent states behind many observations; an observation tells its latent state, to who knows how.

    Args:
        horizon: H.
        latents: latent states per layer.
        observations: of each latent state, seen with equal probability; their order is shuffled in every layer.
        actions: A.
        generator: draws transitions (exponential weights), rewards in [0, 1 / H] and the shuffling.

    Returns:
        The process over observations (S = latents * observations) and the latent state of each, int64 ``[H, S]``.
    """

    def distribution(*shape: int) -> Tensor:
        x = torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)
        return x / x.sum(-1, keepdim=True)

    states = latents * observations
    latent = torch.stack([torch.randperm(states, generator=generator) % latents for _ in range(horizon)])
    start = distribution(latents)[latent[0]] / observations
    transition = torch.zeros(horizon, states, actions, states, dtype=torch.float64)
    reward = torch.zeros(horizon, states, actions, dtype=torch.float64)
    for h in range(horizon):
        move, pay = distribution(latents, actions, latents), torch.rand(latents, actions, generator=generator, dtype=torch.float64)
        following = latent[min(h + 1, horizon - 1)]
        transition[h] = move[latent[h]][..., following] / observations
        reward[h] = pay[latent[h]] / horizon
    return LayeredMDP(transition, reward, start), latent


def latent_policies(latent: Tensor, number: int, actions: int, generator: torch.Generator, *, strays: float = 0.1) -> Tensor:
    """Policies that follow a random map of latent states, but take a random action on some observations.

    Args:
        latent: int64 ``[H, S]``, of :func:`block_mdp`.
        number: N.
        actions: A.
        generator: draws maps and strays.
        strays: share of observations with a random action.

    Returns:
        int64 ``[N, H, S]``.
    """
    horizon, states = latent.shape
    maps = torch.randint(actions, (number, horizon, int(latent.max()) + 1), generator=generator)
    followed = maps.gather(2, latent.expand(number, -1, -1))
    stray = torch.rand(number, horizon, states, generator=generator) < strays
    return torch.where(stray, torch.randint(actions, followed.shape, generator=generator), followed)
