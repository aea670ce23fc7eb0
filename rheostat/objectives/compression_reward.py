"""What a compressed network is worth, and what it is taught by: the reward of N2N learning (Ashok et al. 2017, arXiv 1709.06030)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

FAILURE = -1.0
"""Reward of a network that cannot be built, or is not smaller than the one it was cut from."""
HORIZON = 15
"""Epochs over which a broken constraint comes to cost everything."""


def tolerance(epoch: int, horizon: int = HORIZON) -> float:
    """How much of its reward a network keeps that breaks a constraint: ``(1 - e / horizon)^4``, from 1 before epoch 0 to 0 at the horizon.

    The base is cut off at 0. Without that the fourth power rises again after the horizon.

    Args:
        epoch: of the search, from 0; -1 is before it.
        horizon: epochs until nothing is left.
    """
    return float(min(max(1 - epoch / horizon, 0.0) ** 4, 1.0))


def compression_reward(accuracy: float, parameters: float, base_accuracy: float, base_parameters: float) -> float:
    """``R_a R_c`` with ``R_c = C (2 - C)``, ``C = 1 - parameters / base_parameters`` and ``R_a = accuracy / base_accuracy`` (section 3.3).

    Args:
        accuracy: of the network, a share.
        parameters: how many it has.
        base_accuracy: of the teacher.
        base_parameters: of the network that it was cut from.

    Returns:
        Above 1 only where the network is more accurate than its teacher.
    """
    saved = (base_parameters - parameters) / base_parameters
    return saved * (2 - saved) * accuracy / base_accuracy


def constrained_reward(reward: float, keeps: bool, epoch: int, horizon: int = HORIZON) -> float:
    """The reward of a network under constraints: ``(eps_e - 1) + eps_e R`` where it breaks one.

    Args:
        reward: without constraints.
        keeps: whether it keeps them all.
        epoch: of the search, from 0.
        horizon: epochs after which a network that breaks one earns :data:`FAILURE`.
    """
    if keeps:
        return reward
    kept = tolerance(epoch, horizon)
    return (kept - 1) + kept * reward


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of logits ``[B, K]``, over rows and classes."""
    return functional.mse_loss(student, teacher)
