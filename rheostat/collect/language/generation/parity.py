"""Parity of sampler and learner: whether both give a token the same log-probability, measured before training in two numbers.

An engine with other kernels, another precision, stale weights or another definition of temperature gives log-probabilities that the learner
does not reproduce; the ratio is then wrong from the first token on, and the gap can grow until training collapses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rheostat.collect.language.generation.sampling import Sampling
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.trajectories import Trajectories

MEAN = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.05}
"""Mean gap that the rounding of a dtype explains, with room to spare."""
WORST = {torch.float64: 0.05, torch.float32: 0.05, torch.float16: 0.5, torch.bfloat16: 2.0}


@dataclass(frozen=True)
class Parity:
    """Gap between the sampler's and the learner's log-probabilities, in nats."""

    mean: float
    """Mean absolute gap over the tokens compared."""
    worst: float
    """Largest absolute gap."""
    tokens: int
    """Tokens compared."""
    dtype: torch.dtype = torch.float32
    """Of the learner."""

    def __str__(self) -> str:
        gap = f"{self.mean:.2g} on average and {self.worst:.2g} at worst"
        return f"log-probabilities of sampler and learner differ by {gap} ({self.tokens} tokens)"

    def require(self, mean: float | None = None, worst: float | None = None) -> Parity:
        """Refuse gaps above these limits; None takes those that the learner's dtype explains (``MEAN``, ``WORST``).

        Raises:
            RheostatError: saying what to look at.
        """
        mean, worst = MEAN[self.dtype] if mean is None else mean, WORST[self.dtype] if worst is None else worst
        if not (self.mean <= mean and self.worst <= max(mean, worst)):
            raise RheostatError(
                f"Parity check failed: {self}, more than {mean:g} and {worst:g}. Look at whether the engine has the learner's weights "
                "(update_weights), its dtype, and the same temperature, top-k and top-p."
            )
        return self


@torch.no_grad()
def parity(policy: LanguagePolicy, rows: Trajectories, sampling: Sampling) -> Parity:
    """Score a sample again with the learner.

    Args:
        policy: the learner.
        rows: ``[B, T]`` sampled by an engine that should use the same weights; tokens whose ``sampler_logp`` is NaN are left out.
        sampling: how they were sampled.

    Raises:
        RheostatError: a greedy sample (a deterministic choice has log-probability 0 and cannot be compared), or an empty one.
    """
    if sampling.greedy:
        raise RheostatError("The parity check needs a sample drawn at a temperature above 0: a greedy choice says nothing.")
    mask = rows.mask & ~rows.sampler_logp.isnan()
    if not mask.any():
        raise RheostatError("The parity check needs at least one token whose sampler log-probability is known.")
    scores = policy.score(rows.action, rows.attention, mask, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)
    gap = (scores.logp - rows.sampler_logp)[mask].abs()
    return Parity(float(gap.mean()), float(gap.max()), len(gap), policy.dtype)
