"""Policies whose actions are distributions: the Dirichlet density, its mixture with the uniform one, and a policy gradient over steps.

    log Dir(a; alpha) = lgamma(sum alpha) - sum lgamma(alpha_k) + sum (alpha_k - 1) log a_k
    l = logaddexp( log(1 - eps) + log Dir(a; alpha), log eps + lgamma(K) )            (eps = 0: log Dir(a; alpha))

These are densities, not probabilities: l can be positive, and ratios of two of them can be enormous. So a batch is used for one gradient
step. Where the behaviour explored far from alpha, the uniform part holds nearly all of the density, and the gradient is nearly 0.
CTRLS, arXiv 2507.08182 (the parametrisation is a reconstruction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from rheostat.masking import masked_mean, select
from rheostat.parts import Batch, Context, Report

SMALLEST = 1e-6
"""Of an action's entries: the density has no bound where an entry is 0 and its concentration below 1."""


def dirichlet_logp(alpha: Tensor, action: Tensor) -> Tensor:
    """Log-density ``[...]`` of actions ``[..., K]`` on the simplex under concentrations ``[..., K]``."""
    found: Tensor = Dirichlet(alpha, validate_args=False).log_prob(action)
    return found


def dirichlet_entropy(alpha: Tensor) -> Tensor:
    """Differential entropy ``[...]`` of concentrations ``[..., K]``, in nats; negative for most of them, and largest where all are 1."""
    found: Tensor = Dirichlet(alpha, validate_args=False).entropy()
    return found


def mixture_logp(alpha: Tensor, action: Tensor, epsilon: Tensor) -> Tensor:
    """Log-density ``[...]`` of actions that were drawn uniformly with probability ``epsilon``, and else from their Dirichlet.

    Args:
        alpha, action: ``[..., K]``.
        epsilon: from 0 to below 1; of a shape that broadcasts to ``[...]``.
    """
    own = dirichlet_logp(alpha, action)
    explores = epsilon > 0
    share = torch.where(explores, epsilon, 0.5).to(own)  # where nothing explores the result is not read, and log 0 never computed
    mixed = torch.logaddexp(torch.log1p(-share) + own, share.log() + math.lgamma(alpha.shape[-1]))
    return torch.where(explores, mixed, own)


def on_the_simplex(action: Tensor) -> Tensor:
    """Actions ``[..., K]`` with entries of at least :data:`SMALLEST`, and a sum of 1 again."""
    action = action.clamp(min=SMALLEST)
    return action / action.sum(-1, keepdim=True)


def steps_of(batch: Batch) -> Tensor:
    """``[B, S]`` bool: the steps of rows that are learned from."""
    return batch.columns["latent_steps"] & batch.rows.mask.any(1, keepdim=True)


@dataclass(frozen=True)
class StepTerm:
    """Base class of terms over the steps of rows, ``[B, S]``: a mean over all steps of the batch."""

    model: str = "transition"
    reads: ClassVar[Sequence[str]] = ("latent_input", "latent_steps")

    def mask(self, batch: Batch) -> Tensor:
        """``[B, T]`` bool: the tokens of the steps."""
        found: Tensor = batch.rows.mask
        return found

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """How many steps there are."""
        return steps_of(batch).sum().clamp(min=1)

    def concentrations(self, batch: Batch, context: Context) -> Tensor:
        """``[B, S, K]`` under the present policy."""
        found: Tensor = context.models[self.model].network(batch.columns["latent_input"])
        return found


@dataclass(frozen=True)
class TransitionGradient(StepTerm):
    """The policy gradient of actions on the simplex: ``-mean A l``, with the advantage of the row on all of its steps."""

    reads: ClassVar[Sequence[str]] = (*StepTerm.reads, "advantage", "latent_action", "exploration")

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        rows, columns, steps = batch.rows, batch.columns, steps_of(batch)
        logp = mixture_logp(self.concentrations(batch, context), columns["latent_action"], columns["exploration"][:, None])
        worth = torch.stack([masked_mean(row, mask) for row, mask in zip(rows.advantage, rows.mask, strict=True)])
        loss = -select(worth[:, None] * logp, steps).sum() / denominator
        return loss, Report(sums={"latent/logp": select(logp, steps).sum().detach() / denominator})


@dataclass(frozen=True)
class ActionEntropy(StepTerm):
    """The mean entropy of the Dirichlet over steps: of the action, neither of its mean nor of the mixture."""

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        entropy = select(dirichlet_entropy(self.concentrations(batch, context)), steps_of(batch)).sum() / denominator
        return entropy, Report(sums={"latent/action_entropy": entropy.detach()})
