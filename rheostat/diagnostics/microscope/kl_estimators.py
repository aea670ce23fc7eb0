"""Estimators of KL(learner, reference) against the exact divergence: what their values and their gradients estimate.

Everything is summed over all outcomes, so nothing here is an estimate: the errors are those of float32.

Each estimator is examined per token and summed (how methods use it) and, with ``-sequence``, on the completion's log-probability. The
difference matters for the gradient: a loss on tokens moves each token as if the tokens after it did not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rheostat.credit.group_advantages import to_tokens
from rheostat.credit.token_rewards import kl_penalised_outcome
from rheostat.diagnostics.microscope.exact import flat
from rheostat.diagnostics.microscope.language_problem import LanguageProblem
from rheostat.errors import RheostatError
from rheostat.objectives.clipping import DetachedClip
from rheostat.objectives.kl import KLEstimator, kl_estimate, straight_through
from rheostat.objectives.policy_gradient import policy_terms

TOLERANCE = 1e-3  # relative; float32 log-probabilities leave about 1e-5

Estimate = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Learner's and reference's token log-probs and the mask ``[N, T]`` to value and loss of every completion ``[N]``."""


def _per_token(kind: KLEstimator) -> Estimate:
    def estimate(learner: Tensor, reference: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = kl_estimate(learner, reference, kind, mask=mask).sum(1)
        return found, found

    return estimate


def _per_sequence(kind: KLEstimator) -> Estimate:
    def estimate(learner: Tensor, reference: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = kl_estimate(learner.sum(1), reference.sum(1), kind)
        return found, found

    return estimate


def _k3_with_k2(learner: Tensor, reference: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    k3, k2 = kl_estimate(learner, reference, "k3", mask=mask), kl_estimate(learner, reference, "k2", mask=mask)
    found = straight_through(k3, k2).sum(1)
    return found, found


def _in_reward(learner: Tensor, reference: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    reward = kl_penalised_outcome(torch.zeros(len(learner)), learner.detach(), reference, mask, coefficient=1.0)
    loss = policy_terms(learner, to_tokens(reward, mask), denominator_logp=None, mask=mask, clip=DetachedClip()).loss.sum(1)
    return -reward, loss


KL_ESTIMATORS: dict[str, tuple[str, Estimate]] = {
    "kl:k1": ("k1 as a loss", _per_token("k1")),
    "kl:k1-reward": ("k1 subtracted from the reward", _in_reward),
    "kl:abs": ("absolute log-ratio", _per_token("abs")),
    "kl:k2": ("half the squared log-ratio", _per_token("k2")),
    "kl:k2-sequence": ("the same on whole completions", _per_sequence("k2")),
    "kl:k3": ("k3", _per_token("k3")),
    "kl:k3-sequence": ("the same on whole completions", _per_sequence("k3")),
    "kl:k3-with-k2": ("value of k3, gradient of k2 (straight-through)", _k3_with_k2),
}
"""Title and estimator by name."""


@dataclass(frozen=True)
class KLRow:
    """One estimator, exactly. Errors are relative to the exact divergence or the norm of its exact gradient."""

    name: str
    title: str
    value: float
    """Expected value at the learner's samples, in nats per completion."""
    bias: float
    """Its relative error, signed."""
    deviation: float
    """Standard deviation of a single completion's estimate, over the exact divergence."""
    stale_bias: float
    """Relative error of the expected value at the reference's samples: a stale sampler."""
    gradient_error: float
    """``|E grad - grad KL(learner, reference)| / |grad KL(learner, reference)|``."""
    gradient_cosine: float
    """With ``grad KL(learner, reference)``; 0 for an expected gradient of 0."""
    reverse_error: float
    """The same error against ``grad KL(reference, learner)``."""

    @property
    def verdict(self) -> str:
        """Verdict on the value."""
        return "unbiased" if abs(self.bias) < TOLERANCE else "biased"

    @property
    def gradient_of(self) -> str:
        """The divergence whose gradient the expected gradient is."""
        if self.gradient_error < TOLERANCE:
            return "KL(learner, reference)"
        if self.reverse_error < TOLERANCE:
            return "KL(reference, learner)"
        return "nothing: 0" if abs(self.gradient_error - 1) < TOLERANCE and abs(self.gradient_cosine) < TOLERANCE else "neither"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"verdict": self.verdict, "gradient_of": self.gradient_of}


def kl_rows(names: list[str], problem: LanguageProblem, reference: Tensor, learner: Tensor) -> tuple[list[KLRow], dict[str, float]]:
    """Every named estimator, and the exact divergences in nats per completion.

    Args:
        names: of :data:`KL_ESTIMATORS`.
        problem: whose outcomes are summed over.
        reference, learner: parameters ``[P]``.

    Raises:
        RheostatError: learner and reference are the same.
    """
    mask, count = problem.rows.mask, len(problem.prompts)
    old = problem.token_logp(reference).detach()
    q = old.double().sum(1).exp() / count
    new = problem.token_logp(learner)
    p = new.double().sum(1).exp() / count
    gap = new.double().sum(1) - old.double().sum(1)
    exact, reverse = (p * gap).sum(), (q * -gap).sum()
    if not exact.item() > 0:
        raise RheostatError("Learner and reference are the same policy, whose divergence is 0: take --lag 1 or more.")

    def gradient(scalar: Tensor) -> Tensor:
        return flat(torch.autograd.grad(scalar, problem.parameters, retain_graph=True)).double()

    forward, backward = gradient(exact), gradient(reverse)
    rows = []
    for name in names:
        title, estimate = KL_ESTIMATORS[name]
        value, loss = (x.double() for x in estimate(new, old, mask))
        mean = (p * value).sum().item()
        found = gradient((p.detach() * loss).sum())
        spread = ((p * value.square()).sum().item() - mean**2) / exact.item() ** 2
        norm = float(found.norm())
        rows.append(
            KLRow(
                name=name,
                title=title,
                value=mean,
                bias=mean / exact.item() - 1,
                deviation=max(spread, 0.0) ** 0.5,
                stale_bias=(q * value).sum().item() / exact.item() - 1,
                gradient_error=float((found - forward).norm() / forward.norm()),
                gradient_cosine=float(found @ forward / forward.norm()) / norm if norm > TOLERANCE * float(forward.norm()) else 0.0,
                reverse_error=float((found - backward).norm() / backward.norm()),
            )
        )
    return rows, {"KL(learner, reference)": exact.item(), "KL(reference, learner)": reverse.item()}
