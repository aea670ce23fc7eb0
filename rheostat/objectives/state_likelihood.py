"""A bound on the likelihood of steps that a discrete state explains, with exact sums over the states.

    ELBO = sum_t { sum_k q_t(k) log P(s_t | k) - beta KL(q_t || p_t) }

For a first-order chain of states, ``p_t`` depends on the state before; the bound then holds its expectation under ``q_{t-1}``:
``sum_j q_{t-1}(j) KL(q_t || p(. | j))``. With beta = 1 it is never above ``log sum_z prod_t p(z_t | z_{t-1}) P(s_t | z_t)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheostat.errors import RheostatError


@dataclass(frozen=True)
class Bound:
    """The two parts of the bound, ``[...]`` each, for every step."""

    reconstruction: Tensor
    kl: Tensor
    beta: float

    @property
    def elbo(self) -> Tensor:
        """``[...]`` of every step; the sum over steps is the bound."""
        return self.reconstruction - self.beta * self.kl


def step_bound(q: Tensor, prior_logp: Tensor, loglik: Tensor, *, before: Tensor | None = None, beta: float = 1.0) -> Bound:
    """The bound of steps.

    Args:
        q: ``[..., K]`` probabilities of the states.
        prior_logp: ``[..., K]`` log-probabilities before the step is seen; with ``before`` ``[..., J, K]``, one for each earlier state.
        loglik: ``[..., K]`` log-likelihood of the step in each state.
        before: ``[..., J]`` probabilities of the earlier state.
        beta: weight of the KL.

    Raises:
        RheostatError: shapes that do not fit together.
    """
    wanted = (*q.shape[:-1], q.shape[-1]) if before is None else (*before.shape, q.shape[-1])
    if prior_logp.shape != wanted or loglik.shape != q.shape:
        raise RheostatError(f"Priors {list(prior_logp.shape)} and likelihoods {list(loglik.shape)} do not fit states {list(q.shape)}.")
    expected = prior_logp if before is None else (before[..., None] * prior_logp).sum(-2)
    kl = (torch.xlogy(q, q) - q * expected).sum(-1)
    return Bound((q * loglik).sum(-1), kl, beta)


def state_gap(q: Tensor, loglik: Tensor) -> Tensor:
    """How much better steps are explained by their own states than by those of other steps, in nats per step: 0 where states are ignored.

    The mean over steps of ``sum_k q_t(k) log P(s_t | k)`` less that with ``q`` averaged over all steps, which is what a shuffle of the
    states gives on average.

    Args:
        q: ``[n, K]`` probabilities.
        loglik: ``[n, K]``.
    """
    return ((q - q.mean(0)) * loglik).sum(-1).mean()
