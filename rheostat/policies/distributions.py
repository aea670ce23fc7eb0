"""Action distributions: small, without validation overhead, and with the divergences the methods need in closed form.

Every ``log_prob``, ``entropy`` and ``kl`` is per row (``[N]``): independent action dimensions are summed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """What a policy returns for a batch of observations ``[N, ...]``."""

    @property
    def parameters(self) -> Tensor: ...
    def sample(self, generator: torch.Generator) -> Tensor: ...
    def mode(self) -> Tensor: ...
    def log_prob(self, action: Tensor) -> Tensor: ...
    def entropy(self) -> Tensor: ...
    def kl(self, other: Distribution) -> Tensor: ...
    def detach(self) -> Distribution: ...
    def __getitem__(self, index: Tensor) -> Distribution: ...


@dataclass(slots=True)
class Gaussian:
    """Independent normal action dimensions; actions are float ``[N, D]`` and unbounded (the world clips, PPO detail 27)."""

    mean: Tensor  # [N, D]
    log_std: Tensor  # [N, D], or [D] when it does not depend on the state

    @property
    def parameters(self) -> Tensor:
        """``[N, 2 D]``: mean, then log standard deviation."""
        return torch.cat([self.mean, self.log_std.expand_as(self.mean)], -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, D]``."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def mode(self) -> Tensor:
        """The mean, ``[N, D]``."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, summed over action dimensions."""
        z = (action - self.mean) * (-self.log_std).exp()
        return z.square().sum(-1) * -0.5 - self._log_scale()

    def _log_scale(self) -> Tensor:
        return self.log_std.sum(-1) + HALF_LOG_2PI * self.mean.shape[-1]

    def entropy(self) -> Tensor:
        """``[N]``, in nats."""
        entropy = self.log_std.sum(-1) + (0.5 + HALF_LOG_2PI) * self.mean.shape[-1]
        return entropy.expand(self.mean.shape[:-1])

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other), ``[N]``."""
        assert isinstance(other, Gaussian)
        variance_ratio = (2 * (self.log_std - other.log_std)).exp()
        distance = ((self.mean - other.mean) * (-other.log_std).exp()).square()
        return (0.5 * (variance_ratio + distance - 1) + other.log_std - self.log_std).sum(-1)

    def detach(self) -> Gaussian:
        """The same distribution as constants."""
        return Gaussian(self.mean.detach(), self.log_std.detach())

    def __getitem__(self, index: Tensor) -> Gaussian:
        return Gaussian(self.mean[index], self.log_std if self.log_std.dim() == 1 else self.log_std[index])


class _GaussianLogProb(torch.autograd.Function):
    """Joint log-density ``[N]`` of actions ``[N, D]``, with the gradient of the mean and of a log standard deviation ``[D]``."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
        scale = (-log_std).exp()
        z = (action - mean).mul_(scale)
        ctx.save_for_backward(z, scale)
        return torch.sub(-HALF_LOG_2PI * mean.shape[-1] - log_std.sum(), z.square().sum(-1), alpha=0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, scale = ctx.saved_tensors
        (grad,) = grads
        weighted = z * grad.unsqueeze(-1)
        return weighted * scale, (weighted * z).sum(0).sub_(grad.sum()), None


@dataclass(slots=True)
class FastGaussian(Gaussian):
    """A Gaussian with one log standard deviation ``[D]`` for all states, whose ``log_prob`` is a single autograd node.

    Actions are constants. It cannot be differentiated twice or inside ``torch.func``.
    """

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, summed over action dimensions."""
        return _GaussianLogProb.apply(self.mean, self.log_std, action)  # type: ignore[no-any-return, no-untyped-call]


@dataclass
class Categorical:
    """One choice among A; actions are int64 ``[N]``."""

    logits: Tensor  # [N, A], not necessarily normalised

    @property
    def parameters(self) -> Tensor:
        """``[N, A]`` logits."""
        return self.logits

    @cached_property
    def log_probs(self) -> Tensor:
        """``[N, A]`` log-probabilities of every action."""
        return self.logits.log_softmax(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N]`` by the Gumbel-max trick (exponential races)."""
        race = torch.empty_like(self.logits).exponential_(generator=generator)
        return (self.logits - race.log()).argmax(-1)

    def mode(self) -> Tensor:
        """The most likely action, ``[N]``."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """``[N]``, in nats."""
        log_probs = self.log_probs
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other), ``[N]``, exact over the actions."""
        assert isinstance(other, Categorical)
        log_probs = self.log_probs
        return (log_probs.exp() * (log_probs - other.log_probs)).sum(-1)

    def detach(self) -> Categorical:
        """The same distribution as constants."""
        return Categorical(self.logits.detach())

    def __getitem__(self, index: Tensor) -> Categorical:
        return Categorical(self.logits[index])


@dataclass(slots=True)
class MultiCategorical:
    """Several independent choices (PPO detail 37); actions are int64 ``[N, K]``."""

    logits: Tensor  # [N, A_1 + ... + A_K]
    sizes: tuple[int, ...]  # (A_1, ..., A_K)

    @property
    def parameters(self) -> Tensor:
        """``[N, A_1 + ... + A_K]`` logits."""
        return self.logits

    def parts(self) -> list[Categorical]:
        """The K independent choices."""
        return [Categorical(logits) for logits in self.logits.split(self.sizes, -1)]

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, K]``."""
        return torch.stack([part.sample(generator) for part in self.parts()], -1)

    def mode(self) -> Tensor:
        """The most likely choice of each part, ``[N, K]``."""
        return torch.stack([part.mode() for part in self.parts()], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, summed over the K choices."""
        return torch.stack([part.log_prob(action[..., k]) for k, part in enumerate(self.parts())]).sum(0)

    def entropy(self) -> Tensor:
        """``[N]``, in nats."""
        return torch.stack([part.entropy() for part in self.parts()]).sum(0)

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other), ``[N]``."""
        assert isinstance(other, MultiCategorical)
        return torch.stack([p.kl(q) for p, q in zip(self.parts(), other.parts(), strict=True)]).sum(0)

    def detach(self) -> MultiCategorical:
        """The same distribution as constants."""
        return MultiCategorical(self.logits.detach(), self.sizes)

    def __getitem__(self, index: Tensor) -> MultiCategorical:
        return MultiCategorical(self.logits[index], self.sizes)
