"""Action distributions: small, without validation overhead, and with the divergences the methods need in closed form.

Every ``log_prob``, ``entropy`` and ``kl`` is per row (``[N]``): independent action dimensions are summed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """What a policy returns for a batch of observations ``[N, ...]``.

    Gradients are with respect to ``parameters``, ``[N, P]``, derived by hand: the inner loop of the control methods uses them instead of
    autograd. Their inputs are constants.
    """

    @property
    def parameters(self) -> Tensor:
        """The numbers that define the distribution, ``[N, P]``; carries the gradient."""
        ...

    def sample(self, generator: torch.Generator) -> Tensor:
        """One action each, ``[N, ...]`` in the shape and dtype of the action space; no gradient."""
        ...

    def mode(self) -> Tensor:
        """The most likely action, ``[N, ...]``."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density or log-probability of actions ``[N, ...]``: ``[N]``, nats, summed over action dimensions."""
        ...

    def log_prob_and_gradient(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """``log_prob`` ``[N]`` and its gradient, the score function."""
        ...

    def entropy(self) -> Tensor:
        """``[N]``, nats."""
        ...

    def entropy_gradient(self) -> Tensor:
        """The gradient of ``entropy``, ``[N, P]``."""
        ...

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other) to one of the same family, ``[N]``, nats."""
        ...

    def kl_gradient(self, other: Distribution) -> Tensor:
        """The gradient of ``self.kl(other)``, ``[N, P]``."""
        ...

    def reverse_kl_gradient(self, other: Distribution) -> Tensor:
        """The gradient of ``other.kl(self)``, ``[N, P]``."""
        ...

    def detach(self) -> Distribution:
        """The same without a gradient."""
        ...

    def __getitem__(self, index: Tensor) -> Distribution: ...


@dataclass(slots=True)
class Gaussian:
    """Independent normal action dimensions; actions are float ``[N, D]`` and unbounded (the environment clips, PPO detail 27)."""

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
        return self._density((action - self.mean) * (-self.log_std).exp())

    def log_prob_and_gradient(self, action: Tensor) -> tuple[Tensor, Tensor]:
        scale = (-self.log_std).exp()
        z = (action - self.mean) * scale
        return self._density(z), torch.cat([z * scale, z.square() - 1], -1)

    def _density(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1) - (self.log_std.sum(-1) + HALF_LOG_2PI * z.shape[-1])

    def entropy(self) -> Tensor:
        """``[N]``, in nats."""
        entropy = self.log_std.sum(-1) + (0.5 + HALF_LOG_2PI) * self.mean.shape[-1]
        return entropy.expand(self.mean.shape[:-1])

    def entropy_gradient(self) -> Tensor:
        return torch.cat([torch.zeros_like(self.mean), torch.ones_like(self.mean)], -1)

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other), ``[N]``."""
        assert isinstance(other, Gaussian)
        variance_ratio = (2 * (self.log_std - other.log_std)).exp()
        distance = ((self.mean - other.mean) * (-other.log_std).exp()).square()
        return (0.5 * (variance_ratio + distance - 1) + other.log_std - self.log_std).sum(-1)

    def kl_gradient(self, other: Distribution) -> Tensor:
        assert isinstance(other, Gaussian)
        pull = (self.mean - other.mean) * (-2 * other.log_std).exp()
        return torch.cat([pull, (2 * (self.log_std - other.log_std)).expm1().expand_as(pull)], -1)

    def reverse_kl_gradient(self, other: Distribution) -> Tensor:
        assert isinstance(other, Gaussian)
        difference, precision = self.mean - other.mean, (-2 * self.log_std).exp()
        pull = difference * precision
        return torch.cat([pull, -difference * pull - (2 * (other.log_std - self.log_std)).expm1()], -1)

    def detach(self) -> Gaussian:
        """The same distribution as constants."""
        return Gaussian(self.mean.detach(), self.log_std.detach())

    def __getitem__(self, index: Tensor) -> Gaussian:
        return Gaussian(self.mean[index], self.log_std if self.log_std.dim() == 1 else self.log_std[index])


@dataclass(slots=True)
class Categorical:
    """One choice among A; actions are int64 ``[N]``."""

    logits: Tensor  # [N, A], not necessarily normalised

    @property
    def parameters(self) -> Tensor:
        """``[N, A]`` logits."""
        return self.logits

    @property
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

    def log_prob_and_gradient(self, action: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, index = self.log_probs, action.unsqueeze(-1)
        gradient = log_probs.exp().neg_().scatter_add_(-1, index, log_probs.new_ones(()).expand(index.shape))
        return log_probs.gather(-1, index).squeeze(-1), gradient

    def entropy(self) -> Tensor:
        """``[N]``, in nats."""
        log_probs = self.log_probs
        return -(log_probs.exp() * log_probs).sum(-1)

    def entropy_gradient(self) -> Tensor:
        log_probs = self.log_probs
        probs = log_probs.exp()
        return -probs * (log_probs - (probs * log_probs).sum(-1, keepdim=True))

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other), ``[N]``, exact over the actions."""
        assert isinstance(other, Categorical)
        log_probs = self.log_probs
        return (log_probs.exp() * (log_probs - other.log_probs)).sum(-1)

    def kl_gradient(self, other: Distribution) -> Tensor:
        assert isinstance(other, Categorical)
        log_probs = self.log_probs
        probs, surplus = log_probs.exp(), log_probs - other.log_probs
        return probs * (surplus - (probs * surplus).sum(-1, keepdim=True))

    def reverse_kl_gradient(self, other: Distribution) -> Tensor:
        assert isinstance(other, Categorical)
        return self.logits.softmax(-1) - other.logits.softmax(-1)

    def detach(self) -> Categorical:
        """The same distribution as constants."""
        return Categorical(self.logits.detach())

    def __getitem__(self, index: Tensor) -> Categorical:
        return Categorical(self.logits[index])


def epsilon_greedy(value: Tensor, epsilon: float) -> Categorical:
    """The action with the largest value, or with probability ``epsilon`` any action, all equally likely.

    Args:
        value: ``[N, A]`` of every action.
        epsilon: in [0, 1]. Where it is 0 the other actions have the smallest probability that is above 0, not 0, so that log-probabilities
            stay finite.
    """
    others = epsilon / value.shape[-1]
    probability = torch.full_like(value, max(others, torch.finfo(value.dtype).tiny))
    probability.scatter_(-1, value.argmax(-1, keepdim=True), 1 - epsilon + others)
    return Categorical(probability.log())


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

    def log_prob_and_gradient(self, action: Tensor) -> tuple[Tensor, Tensor]:
        results = [part.log_prob_and_gradient(action[..., k]) for k, part in enumerate(self.parts())]
        return torch.stack([log_prob for log_prob, _ in results]).sum(0), torch.cat([gradient for _, gradient in results], -1)

    def entropy(self) -> Tensor:
        """``[N]``, in nats."""
        return torch.stack([part.entropy() for part in self.parts()]).sum(0)

    def entropy_gradient(self) -> Tensor:
        return torch.cat([part.entropy_gradient() for part in self.parts()], -1)

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other), ``[N]``."""
        assert isinstance(other, MultiCategorical)
        return torch.stack([p.kl(q) for p, q in zip(self.parts(), other.parts(), strict=True)]).sum(0)

    def kl_gradient(self, other: Distribution) -> Tensor:
        assert isinstance(other, MultiCategorical)
        return torch.cat([p.kl_gradient(q) for p, q in zip(self.parts(), other.parts(), strict=True)], -1)

    def reverse_kl_gradient(self, other: Distribution) -> Tensor:
        assert isinstance(other, MultiCategorical)
        return torch.cat([p.reverse_kl_gradient(q) for p, q in zip(self.parts(), other.parts(), strict=True)], -1)

    def detach(self) -> MultiCategorical:
        """The same distribution as constants."""
        return MultiCategorical(self.logits.detach(), self.sizes)

    def __getitem__(self, index: Tensor) -> MultiCategorical:
        return MultiCategorical(self.logits[index], self.sizes)
