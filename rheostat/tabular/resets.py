"""Policy search from a reset distribution: PSDP in layers and conservative policy iteration with a discount.

    PSDP  for h = H .. 1: pi_h = argmax_{pi in Pi} E_{s ~ mu_h} Q_h(s, pi_h(s)), with the layers below already chosen
    CPI   a = max_{pi' in Pi} (1 - gamma) E_{s ~ d} [A(s, pi'(s))], alpha = (1 - gamma) a / (4 R)
          pi <- (1 - alpha) pi + alpha pi';  the normalised value from mu gains at least a^2 / (8 R)

``d`` is the normalised occupancy from mu, and all values of CPI are multiplied by (1 - gamma). Both need a class that is closed under
improvement; without, PSDP can return a policy that is worse than the best member, whatever the number of samples (:func:`psdp_gap`).
Sources: Bagnell et al. 2003; Kakade and Langford 2002; Krishnamurthy, Li and Sekhari 2025 (arXiv 2504.05405).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tabular.bellman import action_values, state_values
from rheostat.tabular.mdp import DiscountedMDP, LayeredMDP, one_hot, require_distribution, require_shape
from rheostat.tabular.occupancy import require_policy, state_occupancy
from rheostat.tabular.policies import layer_backup, policy_values, require_class


class Psdp(NamedTuple):
    """What policy search by dynamic programming returned."""

    chosen: list[int]
    """Index of the member chosen in every layer, from the last to the first; of equal ones the first."""
    policy: Tensor
    """int64 ``[1, H, S]``, composed of the chosen layers."""
    value: float
    """Its exact value from the start."""


def psdp(
    mdp: LayeredMDP,
    policies: Tensor,
    resets: Tensor,
    *,
    rollouts: int | None = None,
    noise: float = 0.5,
    generator: torch.Generator | None = None,
) -> Psdp:
    """Policy search by dynamic programming.

    Args:
        mdp: in layers.
        policies: int64 ``[N, H, S]``, the class; in layer h its members are maps from states to actions.
        resets: float64 ``[H, S]``, mu; every layer sums to 1.
        rollouts: from states of mu and uniform actions, per layer; None takes exact action values.
        noise: standard deviation of a Gaussian on the return of every rollout.
        generator: draws the rollouts.

    Raises:
        RheostatError: a class for another process, a layer of mu without support, or rollouts without a generator.
    """
    require_class(policies, mdp)
    require_shape("resets", resets, mdp.shape[:2])
    require_distribution("resets", resets)
    if rollouts is not None and (rollouts < 1 or generator is None):
        raise RheostatError("Rollouts need a generator, and at least one of them a layer.")
    horizon, states, actions = mdp.shape
    policy = torch.zeros(1, horizon, states, dtype=torch.int64)
    chosen, ahead = [], torch.zeros(states, dtype=torch.float64)
    for h in reversed(range(horizon)):
        q = layer_backup(mdp, h, ahead)
        if rollouts is None:
            merit = (resets[h, :, None] * q).gather(1, policies[:, h].T).sum(0)
        else:
            assert generator is not None
            state = torch.multinomial(resets[h], rollouts, replacement=True, generator=generator)
            action = torch.randint(actions, (rollouts,), generator=generator)
            earned = _returns(mdp, policy[0], h, state, action, generator)
            earned = earned + noise * torch.randn(rollouts, generator=generator, dtype=torch.float64)
            merit = actions * ((policies[:, h][:, state] == action) * earned).mean(1)
        best = int(merit.argmax())
        chosen.append(best)
        policy[0, h] = policies[best, h]
        ahead = q.gather(1, policy[0, h][:, None])[:, 0]
    return Psdp(chosen, policy, float(policy_values(mdp, policy)))


def psdp_gap(mdp: LayeredMDP, policies: Tensor, found: Psdp) -> float:
    """Value of the best member minus that of what PSDP returned; negative where composing layers beats every member.

    Policies int64 ``[N, H, S]``.
    """
    return float(policy_values(mdp, policies).max()) - found.value


def _returns(mdp: LayeredMDP, policy: Tensor, h: int, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
    """Returns ``[B]`` of rollouts: the given states and actions in layer h, then the policy ``[H, S]``."""
    total = mdp.reward[h, state, action]
    for later in range(h + 1, mdp.shape[0]):
        state = torch.multinomial(mdp.transition[later - 1, state, action], 1, generator=generator)[:, 0]
        action = policy[later, state]
        total = total + mdp.reward[later, state, action]
    return total


class CpiStep(NamedTuple):
    """One step of conservative policy iteration. Advantages and gains are normalised: multiplied by (1 - gamma)."""

    occupancy: Tensor
    """float64 ``[S]``, normalised, from the reset distribution."""
    advantage: float
    """a, the best policy advantage in the class."""
    chosen: Tensor
    """int64 ``[S]``, the policy that has it; of equal actions the first."""
    step: float
    """alpha."""
    policy: Tensor
    """float64 ``[S, A]``, the new policy; the old one where the advantage is not positive."""
    guaranteed: float
    """``a^2 / (8 R)``."""
    gain: float
    """What the value from the reset distribution really gained."""


def cpi_step(mdp: DiscountedMDP, policy: Tensor, resets: Tensor, policies: Tensor | None = None, *, reward_max: float = 1.0) -> CpiStep:
    """One step with exact advantages.

    Args:
        mdp: with rewards in [0, reward_max].
        policy: float64 ``[S, A]``, the present one.
        resets: float64 ``[S]``, mu.
        policies: int64 ``[N, S]``, the class; None takes all deterministic maps, without listing them.
        reward_max: R.

    Raises:
        RheostatError: no distributions, an empty class, or a reward outside of [0, reward_max], for which the guarantee does not hold.
    """
    require_policy(mdp, policy)
    if float(mdp.reward.min()) < 0 or float(mdp.reward.max()) > reward_max:
        raise RheostatError(f"Conservative policy iteration needs rewards in [0, {reward_max:g}]: say reward_max, or shift them.")
    d = state_occupancy(mdp, policy, resets)
    v = state_values(mdp, policy)
    advantages = (1 - mdp.gamma) * (action_values(mdp, policy) - v[:, None])
    if policies is None:
        chosen = advantages.argmax(1)
    else:
        if not policies.numel():
            raise RheostatError("The class of policies is empty: give it at least one policy.")
        chosen = policies[int((d * advantages[torch.arange(len(d)), policies]).sum(1).argmax())]
    best = float((d * advantages.gather(1, chosen[:, None])[:, 0]).sum())
    a = max(best, 0.0)
    alpha = (1 - mdp.gamma) * a / (4 * reward_max)
    moved = (1 - alpha) * policy + alpha * one_hot(chosen, mdp.shape[1])
    gain = (1 - mdp.gamma) * float(resets @ (state_values(mdp, moved) - v))
    return CpiStep(d, best, chosen, alpha, moved, a**2 / (8 * reward_max), gain)


def cpi(
    mdp: DiscountedMDP,
    policy: Tensor,
    resets: Tensor,
    policies: Tensor | None = None,
    *,
    epsilon: float = 0.01,
    reward_max: float = 1.0,
    most: int = 100_000,
) -> tuple[Tensor, list[CpiStep]]:
    """Steps until the best advantage in the class is at most epsilon; at most ``8 R^2 / epsilon^2`` are needed.

    Args:
        mdp, policy, resets, policies, reward_max: as in :func:`cpi_step`.
        epsilon: normalised advantage at which it stops, above 0.
        most: steps.

    Returns:
        The last policy, float64 ``[S, A]``, and every step that was made.
    """
    steps: list[CpiStep] = []
    while len(steps) < most:
        step = cpi_step(mdp, policy, resets, policies, reward_max=reward_max)
        if step.advantage <= epsilon:
            break
        steps.append(step)
        policy = step.policy
    return policy, steps
