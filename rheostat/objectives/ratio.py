"""Probability ratios between the policy that learns and the policy it is compared with.

A ratio is ``exp(log_ratio)`` with ``log_ratio = numerator - denominator``. The numerator is the learner's log-prob and carries the
gradient; the denominator never does. The choice of the denominator decides the method:

- the learner at the start of this update (PPO, GRPO), - the true sampler (importance sampling, BAPO),
- the learner itself, ``None`` here: the ratio is 1 and the update is on-policy REINFORCE, - probability 1, ``zeros_like`` (LUFFY: the
  ratio is the probability of the expert's token), - a mixture of policies (:func:`mixture_logp`): with equal
  shares the balance heuristic of multiple importance sampling, whose ratio stays bounded however badly one of the policies is known
  (RL-PLUS, with :func:`external_logp`).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import masked_mean, masked_sum, require_same_shape, select

RatioKind = Literal["token", "sequence", "sequence-token", "sequence-product"]
RATIOS: tuple[RatioKind, ...] = ("token", "sequence", "sequence-token", "sequence-product")

LOG_CLAMP = (-20.0, 20.0)
"""The clamp of token log-ratios in verl: exp(20) is 4.9e8, and outside the clamp the gradient is exactly 0."""


def combine_log_ratio(log_ratio: Tensor, kind: RatioKind = "token", mask: Tensor | None = None) -> Tensor:
    """Log-ratio of every token from the token log-ratios ``[B, T]``: its own, or one number shared by the row.

    | kind | log-ratio of token t | gradient | used by |
    |---|---|---|---|
    | token | d_t | its own token | PPO, GRPO, DAPO |
    | sequence | mean over the row's tokens | every token of the row, 1 / length each | GSPO, GMPO (after a clip in log space) |
    | sequence-token | the same value | its own token | GSPO-token; verl uses it for GSPO |
    | sequence-product | sum over the row's tokens | every token of the row | RLOO in TRL |

    With an advantage that is constant along the row, ``sequence`` and ``sequence-token`` have the same gradient.

    Args:
        log_ratio: ``[B, T]``, or ``[N]`` for ``token``; masked entries must be finite.
        kind: see the table.
        mask: bool, the shape of ``log_ratio``.

    Raises:
        RheostatError: unknown kind, or a sequence ratio of single transitions.
    """
    if kind == "token":
        return log_ratio
    if kind not in RATIOS:
        raise RheostatError(f"Unknown ratio {kind!r}: one of {', '.join(RATIOS)}.")
    if log_ratio.ndim < 2:
        raise RheostatError(
            f"The ratio {kind!r} needs rows of tokens [B, T], but the log-probs have shape {list(log_ratio.shape)}: use 'token'."
        )
    reduce = masked_sum if kind == "sequence-product" else masked_mean
    row = reduce(log_ratio, mask, -1).unsqueeze(-1)
    if kind == "sequence-token":
        return row.detach() + (log_ratio - log_ratio.detach())
    return row.expand_as(log_ratio)


def external_logp(old_logp: Tensor, *, flat: float = 0.5) -> Tensor:
    """Log-prob of tokens that an unknown external policy wrote, as RL-PLUS estimates it: ``log((1 - flat) p_start + flat)``.

    An estimate that is never below ``flat``, so that no ratio to it can grow without bound. The paper speaks of a mixture with a uniform
    distribution; the authors' code mixes in the constant 1 and not 1 / vocabulary (with which every ratio would be near 4/3).

    Args:
        old_logp: log-prob of the external tokens under the learner at the start of the update, any shape.
        flat: share of the constant, in [0, 1]; at 0 the estimate is the learner itself, at 1 it is certainty.

    Raises:
        RheostatError: a share outside [0, 1].
    """
    if not 0 <= flat <= 1:
        raise RheostatError(f"The flat share of an external policy's estimate lies in [0, 1], not at {flat}.")
    if flat in (0, 1):
        return old_logp if flat == 0 else torch.zeros_like(old_logp)
    return mixture_logp([old_logp, torch.zeros_like(old_logp)], [1 - flat, flat])


def window_centre(
    current_logp: Tensor, sampler_logp: Tensor, mask: Tensor | None = None, *, log_clamp: tuple[float, float] | None = LOG_CLAMP
) -> Tensor:
    """Ratio of the policy at the start of the update to the sampler: the centre of the clip window in generalised PPO and ReMix.

    With ``denominator_logp=sampler_logp`` and ``Clip(eps, eps, centre=...)`` every token starts in the middle of its window, however stale
    it is: the trust region is around the current policy, the correction around the sampler. The window stays additive, so its relative
    width is eps / centre. Sources: Queeney et al. 2021 (arXiv 2111.00072); ReMix (arXiv 2507.06892).

    Args:
        current_logp, sampler_logp: one shape; constants.
        mask: bool, the same shape; masked entries may be NaN and give 1.
        log_clamp: as in :func:`rheostat.objectives.policy_gradient.policy_gradient`; give both the same.

    Raises:
        RheostatError: different shapes.
    """
    require_same_shape(current_logp=current_logp, sampler_logp=sampler_logp, mask=mask)
    difference = (select(current_logp, mask) - select(sampler_logp, mask)).detach()
    return (difference if log_clamp is None else difference.clamp(*log_clamp)).exp()


def mixture_logp(logps: list[Tensor], shares: list[float] | None = None) -> Tensor:
    """Log-prob under a mixture of policies, ``log sum_k share_k exp(logp_k)``, for a denominator such as (p_old + p_expert) / 2.

    Args:
        logps: log-probs of the same tokens under each policy, equal shapes.
        shares: mixing proportions, positive; equal ones where None. They need not sum to 1.

    Returns:
        Nats, in the shape of one of them; carries the gradients of all.

    Raises:
        RheostatError: no policy, or as many shares as policies are not given.
    """
    shares = [1.0 / max(1, len(logps))] * len(logps) if shares is None else shares
    if not logps or len(shares) != len(logps):
        raise RheostatError(f"A mixture needs one share per policy: {len(logps)} policies and {len(shares)} shares were given.")
    return torch.logsumexp(torch.stack([logp + math.log(share) for logp, share in zip(logps, shares, strict=True)]), dim=0)
