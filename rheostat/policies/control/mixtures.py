"""Mixtures of Gaussian experts: as they are (PPO), and squashed into the bounds (SAC).

    pi(a|s) = sum_k w_k(s) N(a; mu_k(s), sigma_k(s)),      w = softmax(logits),      dimensions independent

A sample comes from one expert, chosen with probability w. With a single expert nothing is chosen, so a mixture of one uses the random
numbers of the plain Gaussian. Densities use logsumexp: a sum of exponentials underflows for far actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rheostat.policies.control.distributions import Categorical, Distribution, Gaussian
from rheostat.policies.control.squashed import SquashedGaussian


def choose_expert(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Index ``[N]`` of an expert drawn from ``softmax(logits)``, ``[N, K]``; one expert needs no random numbers."""
    return logits.new_zeros(len(logits), dtype=torch.int64) if logits.shape[-1] == 1 else Categorical(logits).sample(generator)


def likely_expert(logits: Tensor, expert_generator: torch.Generator | None) -> Tensor:
    """Index ``[N]`` of the expert whose mean is the deterministic action: the likeliest (the first of equals), or one drawn by
    ``expert_generator``, as the authors of PMOE do."""
    return logits.argmax(-1) if expert_generator is None else choose_expert(logits, expert_generator)


def of_expert(x: Tensor, index: Tensor) -> Tensor:
    """The entries of one expert per row: ``[N, K]`` or ``[N, K, D]`` at ``[N]`` to ``[N]`` or ``[N, D]``."""
    return x[torch.arange(len(x)), index]


@dataclass(slots=True)
class MixtureOfGaussians:
    """K experts with independent normal action dimensions; actions are float ``[N, D]`` and unbounded (the environment clips).

    The entropy and the divergence of mixtures have no closed form; ``entropy`` and ``kl`` are the deterministic estimates named there,
    exact for one expert. A Gaussian is a mixture of one, so ``kl`` takes either.
    """

    logits: Tensor  # [N, K], not necessarily normalised
    mean: Tensor  # [N, K, D]
    log_std: Tensor  # [N, K, D], or [K, D] when it does not depend on the state
    expert_generator: torch.Generator | None = None  # draws the expert of mode(); None takes the likeliest

    @property
    def parameters(self) -> Tensor:
        """``[N, K + 2 K D]``: logits, means, then log standard deviations, both expert by expert."""
        return torch.cat([self.logits, self.mean.flatten(1), self.log_std.expand_as(self.mean).flatten(1)], -1)

    @property
    def experts(self) -> Gaussian:
        """All experts, ``[N, K, D]``."""
        return Gaussian(self.mean, self.log_std)

    @property
    def log_weights(self) -> Tensor:
        """log w, ``[N, K]``."""
        return self.logits.log_softmax(-1)

    def sample_experts(self, generator: torch.Generator) -> Tensor:
        """A draw of every expert, ``[N, K, D]``."""
        return self.experts.sample(generator)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, D]``: an expert, then its action."""
        index = choose_expert(self.logits, generator)
        return Gaussian(of_expert(self.mean, index), of_expert(self.log_std.expand_as(self.mean), index)).sample(generator)

    def mode(self) -> Tensor:
        """The mean of one expert, ``[N, D]``: of the likeliest, or of one drawn by ``expert_generator`` (the density's own mode has no
        closed form)."""
        return of_expert(self.mean, likely_expert(self.logits, self.expert_generator))

    def _joint(self, action: Tensor) -> Tensor:
        """``log w_k + log N_k(a)``, ``[N, K]``."""
        return self.log_weights + self.experts.log_prob(action.unsqueeze(-2))

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, nats."""
        return self._joint(action).logsumexp(-1)

    def responsibilities(self, action: Tensor) -> Tensor:
        """Probability ``[N, K]`` that each expert drew the action."""
        return self._joint(action).softmax(-1)

    def log_prob_and_gradient(self, action: Tensor) -> tuple[Tensor, Tensor]:
        density, gradient = self.experts.log_prob_and_gradient(action.unsqueeze(-2))  # [N, K], [N, K, 2 D]
        log_weights = self.log_weights
        joint = log_weights + density
        log_prob = joint.logsumexp(-1)
        share = (joint - log_prob.unsqueeze(-1)).exp()
        to_mean, to_log_std = (share.unsqueeze(-1) * gradient).chunk(2, -1)
        return log_prob, torch.cat([share - log_weights.exp(), to_mean.flatten(1), to_log_std.flatten(1)], -1)

    # --- entropy ----------------------------------------------------------------------------------------------------------------------

    def entropy(self) -> Tensor:
        """Pairwise-distance estimate of the entropy, ``[N]``, nats: ``sum_k w_k (H_k - log sum_j w_j exp(-B_kj))`` with H_k the entropy of
        expert k and B the Bhattacharyya distance (Kolchinsky and Tracey 2017, arXiv 1706.02419). A lower bound; exact where the experts are
        one and the same, and where they do not overlap.
        """
        weights, own, overlap, _ = self._overlaps()
        return (weights * (own - overlap.log())).sum(-1)

    def entropy_gradient(self) -> Tensor:
        weights, own, overlap, closeness = self._overlaps()
        by_weight = own - overlap.log() - (closeness * (weights / overlap).unsqueeze(-1)).sum(-2)
        to_logits = weights * (by_weight - (weights * by_weight).sum(-1, keepdim=True))
        # d entropy / d B_kj, where B_kj stands in the sums of both k and j
        inverse = 1 / overlap
        pull = weights.unsqueeze(-1) * weights.unsqueeze(-2) * closeness * (inverse.unsqueeze(-1) + inverse.unsqueeze(-2))  # [N, K, K]
        difference, variance, total = self._pairs()
        push = pull.unsqueeze(-1) / total  # [N, K, K, D]
        to_mean = 0.5 * (push * difference).sum(-2)
        own_share = variance.unsqueeze(-2) / total
        by_log_std = pull.unsqueeze(-1) * own_share * (1 - 0.5 * difference.square() / total) - 0.5 * pull.unsqueeze(-1)
        to_log_std = weights.unsqueeze(-1) + by_log_std.sum(-2)
        return torch.cat([to_logits, to_mean.flatten(1), to_log_std.flatten(1)], -1)

    def _pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Differences of means and sums of variances of every pair of experts ``[N, K, K, D]``, and every expert's variance ``[N, K, D]``
        in between."""
        variance = (2 * self.log_std.expand_as(self.mean)).exp()
        difference = self.mean.unsqueeze(-2) - self.mean.unsqueeze(-3)
        return difference, variance, variance.unsqueeze(-2) + variance.unsqueeze(-3)

    def _overlaps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights w, entropies of the experts, ``sum_j w_j exp(-B_kj)``, all ``[N, K]``, and ``exp(-B_kj)`` ``[N, K, K]``."""
        difference, _, total = self._pairs()
        log_std = self.log_std.expand_as(self.mean)
        spread = (0.5 * total).log() - log_std.unsqueeze(-2) - log_std.unsqueeze(-3)
        closeness = (-(0.25 * difference.square() / total + 0.5 * spread).sum(-1)).exp()
        weights = self.logits.softmax(-1)
        return weights, Gaussian(self.mean, log_std).entropy(), (closeness * weights.unsqueeze(-2)).sum(-1), closeness

    # --- divergence -------------------------------------------------------------------------------------------------------------------

    def kl(self, other: Distribution) -> Tensor:
        """Variational estimate of KL(self || other), ``[N]``, nats (Hershey and Olsen 2007):

            sum_k w_k [log sum_j w_j exp(-KL(k || j)) - log sum_j v_j exp(-KL(k || other's j))].

        0 between equal mixtures; neither a bound nor always positive.
        """
        theirs = other if isinstance(other, MixtureOfGaussians) else _of_one(other)
        reach = (theirs.log_weights.unsqueeze(-2) - _between(self, theirs)).logsumexp(-1)
        own = (self.log_weights.unsqueeze(-2) - _between(self, self)).logsumexp(-1)
        return (self.logits.softmax(-1) * (own - reach)).sum(-1)

    def kl_gradient(self, other: Distribution) -> Tensor:
        """By autograd: no inner loop of this library's methods needs it."""
        return _gradient(self, lambda mine: mine.kl(other))

    def reverse_kl_gradient(self, other: Distribution) -> Tensor:
        """By autograd, as ``kl_gradient``."""
        theirs = other if isinstance(other, MixtureOfGaussians) else _of_one(other)
        return _gradient(self, lambda mine: theirs.kl(mine))

    # --- parts ------------------------------------------------------------------------------------------------------------------------

    def detach(self) -> MixtureOfGaussians:
        """The same distribution as constants."""
        return replace(self, logits=self.logits.detach(), mean=self.mean.detach(), log_std=self.log_std.detach())

    def __getitem__(self, index: Tensor) -> MixtureOfGaussians:
        log_std = self.log_std if self.log_std.dim() == 2 else self.log_std[index]
        return replace(self, logits=self.logits[index], mean=self.mean[index], log_std=log_std)


def _of_one(other: Distribution) -> MixtureOfGaussians:
    """A Gaussian as a mixture of one."""
    assert isinstance(other, Gaussian)
    log_std = other.log_std.expand_as(other.mean)
    return MixtureOfGaussians(torch.zeros_like(other.mean[:, :1]), other.mean.unsqueeze(1), log_std.unsqueeze(1))


def _between(a: MixtureOfGaussians, b: MixtureOfGaussians) -> Tensor:
    """KL of every expert of ``a`` from every expert of ``b``, ``[N, K, J]``."""
    here, there = a.log_std.expand_as(a.mean), b.log_std.expand_as(b.mean)
    return Gaussian(a.mean.unsqueeze(-2), here.unsqueeze(-2)).kl(Gaussian(b.mean.unsqueeze(-3), there.unsqueeze(-3)))


def _gradient(mixture: MixtureOfGaussians, of: Callable[[MixtureOfGaussians], Tensor]) -> Tensor:
    """Derivative of ``of(mixture)`` ``[N]`` with respect to ``parameters``, row by row."""
    with torch.enable_grad():
        parts = (mixture.logits, mixture.mean, mixture.log_std.expand_as(mixture.mean))
        logits, mean, log_std = (part.detach().clone().requires_grad_() for part in parts)
        gradients = torch.autograd.grad(of(MixtureOfGaussians(logits, mean, log_std)).sum(), (logits, mean, log_std))
    return torch.cat([gradient.flatten(1) for gradient in gradients], -1)


@dataclass(slots=True)
class SquashedMixture:
    """``a = tanh(u)``, ``u`` from a mixture of Gaussians; actions are float ``[N, D]`` in (-1, 1).

    A soft method can mean one of two densities: that of the expert that acted (the authors of PMOE), or that of the whole mixture,
    which is the more spread out. :meth:`draw` gives the first, :meth:`log_prob` and :meth:`mixture_log_prob` the second.
    """

    logits: Tensor  # [N, K], not necessarily normalised
    mean: Tensor  # [N, K, D] of u
    log_std: Tensor  # [N, K, D] of u
    expert_generator: torch.Generator | None = None  # draws the expert of mode(); None takes the likeliest

    @property
    def normal(self) -> MixtureOfGaussians:
        """The distribution of ``u``."""
        return MixtureOfGaussians(self.logits, self.mean, self.log_std)

    @property
    def experts(self) -> SquashedGaussian:
        """All experts, ``[N, K, D]``."""
        return SquashedGaussian(self.mean, self.log_std)

    def expert(self, index: Tensor) -> SquashedGaussian:
        """One expert per row, ``[N, D]``, from its index ``[N]``."""
        return SquashedGaussian(of_expert(self.mean, index), of_expert(self.log_std, index))

    def choose(self, generator: torch.Generator) -> Tensor:
        """Index ``[N]`` of an expert drawn from the weights."""
        return choose_expert(self.logits, generator)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw ``[N, D]``: an expert, then its action."""
        return self.expert(self.choose(generator)).sample(generator)

    def mode(self) -> Tensor:
        """``tanh`` of the mean of one expert, ``[N, D]``: of the likeliest, or of one drawn by ``expert_generator``."""
        return of_expert(self.mean, likely_expert(self.logits, self.expert_generator)).tanh()

    def log_prob(self, action: Tensor) -> Tensor:
        """``[N]``, nats, of the whole mixture; an action at the bound counts as just inside."""
        return (self.logits.log_softmax(-1) + self.experts.log_prob(action.unsqueeze(-2))).logsumexp(-1)

    def noise(self, generator: torch.Generator) -> Tensor:
        """Standard normal draws for every expert, ``[N, K, D]``."""
        return self.experts.noise(generator)

    def draw(self, noise: Tensor, *, stability: float | None = None) -> tuple[Tensor, Tensor]:
        """Reparameterised actions of all experts ``[N, K, D]`` and the log-probability of each under its own expert ``[N, K]``; the
        gradient flows through both. Arguments as in :meth:`~rheostat.policies.control.squashed.SquashedGaussian.draw`."""
        return self.experts.draw(noise, stability=stability)

    def mixture_log_prob(self, noise: Tensor, log_prob: Tensor) -> Tensor:
        """The log-probability under the whole mixture of what ``draw(noise)`` gave, ``[N, K]``; the gradient flows through it.

        Squashing changes both densities by the same factor, so their difference is the one before squashing.

        Args:
            noise: ``[N, K, D]``.
            log_prob: ``[N, K]``, under the expert of its own, as ``draw`` returned it.
        """
        u = torch.addcmul(self.mean, self.log_std.exp(), noise)
        density = Gaussian(self.mean.unsqueeze(1), self.log_std.unsqueeze(1)).log_prob(u.unsqueeze(2))  # [N, K of the draw, K]
        whole = (self.logits.log_softmax(-1).unsqueeze(1) + density).logsumexp(-1)
        return log_prob + whole - density.diagonal(dim1=-2, dim2=-1)
