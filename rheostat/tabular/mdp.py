"""Finite decision processes given by tables of probabilities: with a discount, or in layers.

With a discount, rows of the transition table sum to 1 or to less: what is missing ends the episode, and nothing is earned after the end.
In layers an episode ends after the last one, and rows sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tasks.control.tabular import TabularMDP

ROUNDING = 1e-8
"""By which probabilities may sum to more than 1."""


@dataclass(frozen=True, slots=True)
class DiscountedMDP:
    """A process without a horizon.

    Raises:
        RheostatError: shapes that do not belong together, numbers that are no probabilities, or a discount outside of [0, 1).
    """

    transition: Tensor
    """float64 ``[S, A, S]``."""
    reward: Tensor
    """float64 ``[S, A]``, the mean reward of every action."""
    start: Tensor
    """float64 ``[S]``, probabilities of the first state."""
    gamma: float
    """The discount. It may be 1 where every policy ends its episode."""

    def __post_init__(self) -> None:
        states, actions = _shape(self.reward, 2, "reward", "[S, A]")
        require_shape("transition", self.transition, (states, actions, states))
        require_shape("start", self.start, (states,))
        require_probabilities("transition", self.transition)
        require_distribution("start", self.start)
        ends = bool((self.transition.sum(-1) < 1 - ROUNDING).any())
        if not 0 <= self.gamma <= 1 or (self.gamma == 1 and not ends):
            raise RheostatError(f"The discount gamma is {self.gamma}: it lies in [0, 1), or is 1 where episodes end by themselves.")

    @classmethod
    def of_table(cls, table: TabularMDP, gamma: float) -> DiscountedMDP:
        """A deterministic table with a discount; its time limit is left out."""
        return cls(table.transition(), table.reward.double(), table.start / table.start.sum(), gamma)

    @property
    def shape(self) -> tuple[int, int]:
        """S and A."""
        return self.reward.shape[0], self.reward.shape[1]


@dataclass(frozen=True, slots=True)
class LayeredMDP:
    """A process of H steps, each with transitions and rewards of its own; values are undiscounted sums.

    Raises:
        RheostatError: shapes that do not belong together, or numbers that are no probabilities.
    """

    transition: Tensor
    """float64 ``[H, S, A, S]``: from layer h to layer h + 1; the last layer's goes nowhere."""
    reward: Tensor
    """float64 ``[H, S, A]``, mean rewards."""
    start: Tensor
    """float64 ``[S]``, probabilities of the state in layer 0."""

    def __post_init__(self) -> None:
        horizon, states, actions = _shape(self.reward, 3, "reward", "[H, S, A]")
        require_shape("transition", self.transition, (horizon, states, actions, states))
        require_shape("start", self.start, (states,))
        require_distribution("transition", self.transition)
        require_distribution("start", self.start)

    @classmethod
    def of_table(cls, table: TabularMDP) -> LayeredMDP:
        """A deterministic table over as many layers as its time limit has steps; a last state is added, in which ended episodes wait."""
        states, actions = table.num_states, table.num_actions
        transition = torch.zeros(states + 1, actions, states + 1, dtype=torch.float64)
        transition[:states, :, :states] = table.transition()
        transition[..., -1] = 1 - transition[..., :-1].sum(-1)
        pad = torch.nn.functional.pad
        reward, start = pad(table.reward.double(), (0, 0, 0, 1)), pad(table.start / table.start.sum(), (0, 1))
        return cls(transition.expand(table.limit, -1, -1, -1), reward.expand(table.limit, -1, -1), start)

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, S and A."""
        return self.reward.shape[0], self.reward.shape[1], self.reward.shape[2]


def one_hot(actions: Tensor, number: int) -> Tensor:
    """Deterministic policies as probabilities.

    Args:
        actions: int64 ``[..., S]``.
        number: of actions, A.

    Returns:
        float64 ``[..., S, A]``.
    """
    return torch.nn.functional.one_hot(actions, number).double()


# --- refusals ----------------------------------------------------------------------------------------------------------------------------


def require_shape(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse another shape or another precision.

    Raises:
        RheostatError: naming both.
    """
    if x.dtype != torch.float64:
        raise RheostatError(
            f"{name} is {str(x.dtype).removeprefix('torch.')}: the exact laboratory computes in float64, give it .double()."
        )
    if tuple(x.shape) != shape:
        raise RheostatError(f"{name} has the shape {list(x.shape)}, and {list(shape)} is needed.")


def require_probabilities(name: str, x: Tensor) -> None:
    """Refuse rows ``[..., K]`` with a negative entry, NaN, or a sum above 1.

    Raises:
        RheostatError: naming the first such row.
    """
    wrong = ~((x >= 0).all(-1) & (x.sum(-1) <= 1 + ROUNDING))
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist() if wrong.ndim else []
        raise RheostatError(f"{name}{place or ''} is no list of probabilities: entries are at least 0 and sum to at most 1.")


def require_distribution(name: str, x: Tensor) -> None:
    """Refuse rows ``[..., K]`` that are not whole distributions: one without support sums to 0.

    Raises:
        RheostatError: naming the first such row and its sum.
    """
    require_probabilities(name, x)
    total = x.sum(-1)
    wrong = (total - 1).abs() > ROUNDING
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist() if wrong.ndim else []
        found = float(total[tuple(place)])
        why = "it has no support" if found == 0 else f"it sums to {found:.6g}"
        raise RheostatError(f"{name}{place or ''} is no distribution: {why}, and must sum to 1.")


def _shape(x: Tensor, axes: int, name: str, wanted: str) -> tuple[int, ...]:
    if x.ndim != axes or 0 in x.shape:
        raise RheostatError(f"{name} has the shape {list(x.shape)}, and {wanted} is needed, each at least 1.")
    require_shape(name, x, tuple(x.shape))
    return tuple(x.shape)
