"""Several Gaussian policies as one: K actors whose layers are batched matrix products, moved together and limited one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from rheostat.errors import unknown
from rheostat.policies.control.critics import Stack
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.parameters import OptimizedNetwork

LOG_STD = (-5.0, 0.0)
"""Limits of the log standard deviation (Uni-O4, BPPO)."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "tanh": torch.tanh}


def soft_limits(x: Tensor, low: float, high: float, *, squash: bool = False) -> Tensor:
    """``low + (high - low) (x + 1) / 2``: numbers in ``[-1, 1]`` mapped onto ``[low, high]``.

    Args:
        x: any shape, what a network gives after its tanh.
        squash: put ``x`` through another tanh first, as the online part of Uni-O4's release does; it leaves only the middle 76 percent
            of the range.
    """
    return low + 0.5 * (high - low) * ((x.tanh() if squash else x) + 1)


@torch.no_grad()
def take_over(stack: Stack, source: Stack, networks: Tensor) -> None:
    """Copy the networks of ``source`` with these numbers, int64 ``[K]``, into ``stack``, which has K networks."""
    for mine, theirs in zip(stack.parameters(), source.parameters(), strict=True):
        mine.copy_(theirs[networks])


class GaussianEnsemble(nn.Module):
    """K policies of unit actions whose whole output passes through tanh: half of it is the mean, half the log standard deviation.

    Means lie in (-1, 1); samples are not squashed and may leave ``[-1, 1]``, and the environment clips them. Weights start orthogonal with
    gain 1 (Uni-O4), biases as PyTorch's.

    Args:
        members: K.
        observations, actions: features of an observation and of a unit action.
        hidden: widths of the hidden layers.
        activation: relu or tanh, between the layers.
        log_std: limits of the log standard deviation.
        squash: see :func:`soft_limits`.
        generator: draws the initial weights.

    Raises:
        RheostatError: an activation that does not exist.
    """

    def __init__(
        self,
        members: int,
        observations: int,
        actions: int,
        *,
        hidden: tuple[int, ...] = (256, 256, 256),
        activation: str = "relu",
        log_std: tuple[float, float] = LOG_STD,
        squash: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        self.limits, self.squash = log_std, squash
        self.stack = Stack(members, observations, hidden, 2 * actions, activation=ACTIVATIONS[activation], generator=generator)
        for weight in self.stack.weights:
            for one in weight.data:
                nn.init.orthogonal_(one, generator=generator)

    def distribution(self, observation: Tensor) -> Gaussian:
        """Of all members, for normalised observations ``[B, observations]`` or ``[K, B, observations]``: mean and deviation are
        ``[K, B, actions]``, log-probabilities ``[K, B]``."""
        mean, spread = self.stack(observation).tanh().chunk(2, -1)
        return Gaussian(mean, soft_limits(spread, *self.limits, squash=self.squash))

    def become(self, other: GaussianEnsemble, members: Tensor) -> None:
        """Copy the parameters of these members of ``other``, int64 ``[K]``."""
        take_over(self.stack, other.stack, members)

    @torch.no_grad()
    def replace(self, which: Tensor, other: GaussianEnsemble) -> None:
        """Replace the members where ``which`` (bool ``[K]``) is True by those of ``other``; keep the rest."""
        for mine, theirs in zip(self.stack.parameters(), other.stack.parameters(), strict=True):
            mine[which] = theirs[which]


class TrainableEnsemble(OptimizedNetwork):
    """Members with one Adam over all of them: as Adam moves every number by itself, each member moves as if it were alone. Losses
    are added; the gradient norm is clipped member by member."""

    network: GaussianEnsemble

    def step(self, loss: Tensor, *, max_grad_norm: float | None = None) -> float:
        """One step down the members' summed losses, a scalar; returns the mean of their gradient norms before clipping (or NaN)."""
        self.parameters.gradient.zero_()
        loss.backward()
        norm = float("nan") if max_grad_norm is None else self._limit(max_grad_norm)
        self.optimizer.step()
        return norm

    def forget(self) -> None:
        """Reset the optimiser: no moments."""
        self.optimizer.state.clear()

    def _limit(self, max_norm: float) -> float:
        gradients = [parameter.grad for parameter in self.network.parameters()]
        norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients if gradient is not None]).sum(0).sqrt()  # [K]
        scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(scale.view(-1, *(1,) * (gradient.dim() - 1)))
        return norms.mean().item()
