"""Problems whose outcomes can be listed: the expected reward and its gradient are sums, not estimates.

A problem is a table of outcomes with their returns and a differentiable log-probability of each. From these follow
``J(theta) = sum_y p_theta(y) R(y)``, its gradient, the divergence of two parameter vectors and the effective sample size between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError

LIMIT = 20_000
"""Most outcomes that are listed."""
UNCOUNTED = 10**15  # where counting stops


def require_small(name: str, outcomes: int) -> None:
    """Refuse a problem with too many outcomes.

    Raises:
        RheostatError: with the size and the limit.
    """
    if outcomes > LIMIT:
        size = f"{outcomes:,}" if outcomes < UNCOUNTED else f"more than {UNCOUNTED:,}"
        raise RheostatError(
            f"The problem {name} has {size} outcomes, more than the {LIMIT:,} that can be listed: make it smaller with --length."
        )


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """The parameters as one vector ``[P]``, a copy."""
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


@torch.no_grad()
def assign(parameters: Sequence[Tensor], theta: Tensor) -> None:
    """Write a vector ``[P]`` into the parameters."""
    for parameter, part in zip(parameters, theta.split([parameter.numel() for parameter in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


class Problem(ABC):
    """The interface of problems for the microscope.

    Attributes:
        name: as on the command line.
        domain: of the methods that can be examined.
        step: default step size of the exact ascent that separates the behaviour policy from the learner.
        theta: ``[P]``, parameters of the behaviour policy.
        returns: ``[N]`` float64, the reward of every outcome.
    """

    name: str
    domain: ClassVar[Literal["control", "language"]]
    step: float
    theta: Tensor
    returns: Tensor

    @abstractmethod
    def outcome_logp(self, theta: Tensor) -> Tensor:
        """Log-probability of every outcome under these parameters, ``[N]``; carries the gradient of the internal parameters."""

    @property
    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """The tensors that ``theta`` is made of."""

    def value(self, theta: Tensor) -> float:
        """The expected reward ``J(theta)``."""
        with torch.no_grad():
            return float((self.outcome_logp(theta).double().exp() * self.returns).sum())

    def exact(self, theta: Tensor) -> tuple[float, Tensor]:
        """``J(theta)`` and its gradient ``[P]`` float64, by summing over all outcomes."""
        value = (self.outcome_logp(theta).double().exp() * self.returns).sum()
        gradients = torch.autograd.grad(value, self.parameters)
        return value.item(), flat(gradients).double()

    def path(self, steps: int, step_size: float | None = None) -> list[Tensor]:
        """``theta`` and the parameters after each of ``steps`` steps of exact gradient ascent, ``steps + 1`` vectors."""
        thetas = [self.theta]
        for _ in range(steps):
            ascent = self.exact(thetas[-1])[1] * (self.step if step_size is None else step_size)
            thetas.append((thetas[-1].double() + ascent).to(self.theta.dtype))
        return thetas

    def distance(self, behaviour: Tensor, learner: Tensor) -> tuple[float, float]:
        """KL(behaviour, learner) in nats per outcome, and the effective sample size of the outcomes' weights, a share."""
        with torch.no_grad():
            old, new = self.outcome_logp(behaviour).double(), self.outcome_logp(learner).double()
            p = old.exp() / old.exp().sum()
            return float((p * (old - new)).sum()), float(1 / (p * (2 * (new - old)).exp()).sum())
